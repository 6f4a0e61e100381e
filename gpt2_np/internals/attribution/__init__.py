"""Who did it: attribution with gradients, by node, by edge and by input, and the proof that it is true.

nodes         every activation: AtP, AtP*, RelP
edges         every edge of the residual stream: EAP, EAP-IG, RelP
circuit       the model with some edges only
faithfulness  how true it is: circuits of all sizes, exact patching of every node and edge
inputs        the prompt's tokens: saliency, integrated gradients, occlusion, attention roll-out
graph         which edges there are, and their names
rules         what takes a gradient's place
pairs         prompts by pairs, as texts or ids
"""

from . import rules as rules
from .nodes import Nodes, nodes
from .rules import relevance

__all__ = ["Nodes", "nodes", "relevance"]
