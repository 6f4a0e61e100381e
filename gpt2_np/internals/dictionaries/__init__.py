"""Dictionaries: sparse autoencoders and transcoders in SAELens's format, without torch.

config         what ``cfg.json`` says, of SAELens 6 and of the versions before
coding         encode, decode, the gradient through both
dictionary     `Dictionary`: that, and the edit that puts it into a run
activations    ReLU, top-k, JumpReLU, gated
normalisation  what is taken out of activations before they are read
folding        weights rewritten: a factor folded in, training checkpoints made fit for use
load           from a folder, the hub, or a release of SAELens's
releases       SAELens's releases for GPT-2 as data; files from the hub
save           SAELens's files
evaluation     how good it is: SAELens's and SAEBench's figures, over a corpus
sums           what its figures are made of, in a file: parts of a corpus judged apart, and merged
places         where a dictionary belongs in a model
resumed        runs that go on from the middle
firing         which features a prompt makes fire, token by token
effects        what features do: to the logits directly, to a metric by its gradient
dashboards     where in a corpus features fire, how often and how much, and the words that they move
graph          how the features of a prompt make each other, with a transcoder a layer
graph_effects  whether such a graph is true: features silenced one by one
histograms     of many features at once
training       dictionaries from activations on disk
splicing       a dictionary in a run: reconstructions, features ablated, scaled, added, set
"""

from .config import Config
from .dashboards import Dashboard, dashboards
from .dictionary import Dictionary
from .effects import Attribution, DirectFeatures, attribute, direct, logit_effects
from .evaluation import Evaluation, evaluate
from .firing import Firing, fires
from .load import load, load_layers
from .releases import RELEASES
from .save import save
from .splicing import splice, spliced
from .training import train

__all__ = [
    "RELEASES",
    "Attribution",
    "Config",
    "Dashboard",
    "Dictionary",
    "DirectFeatures",
    "Evaluation",
    "Firing",
    "attribute",
    "dashboards",
    "direct",
    "evaluate",
    "fires",
    "load",
    "load_layers",
    "logit_effects",
    "save",
    "splice",
    "spliced",
    "train",
]
