"""Dictionaries: sparse autoencoders and transcoders in SAELens's format, without torch.

config         the fields of ``cfg.json``, of SAELens 6 and of earlier versions
coding         encode, decode, and the gradient through both
dictionary     `Dictionary`: a dictionary, and the edit that splices it into a run
activation_functions  ReLU, top-k, JumpReLU, gated
normalisation  the normalisation of activations before they are encoded
folding        rewriting weights: a factor is folded in, training checkpoints are converted for use
load           loading from a folder, the hub, or one of SAELens's releases
releases       SAELens's releases for GPT-2 as data; files from the hub
save           saving SAELens's files
evaluation     figures of quality over a corpus: SAELens's and SAEBench's
sums           the sums that these figures are made of, in a file: parts of a corpus are evaluated apart and merged
places         which activation of a model a dictionary belongs to
resumed        runs that start at a layer in the middle
firing         which features fire on a prompt, token by token
effects        the effects of features: on logits directly, on a metric by its gradient
dashboards     where in a corpus features fire, how often and how strongly, and which words they raise or lower
graph          attribution graphs: the effects of a prompt's features on each other, with a transcoder in each layer
graph_effects  checks of such a graph: features are silenced one by one
histograms     histograms of many features at once
training       training dictionaries on activations on disk
splicing       a dictionary in a run: reconstructions; features ablated, scaled, added, set
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
