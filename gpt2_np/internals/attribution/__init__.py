"""Attribution with gradients, by node, by edge and by input, and checks of its faithfulness.

nodes         every activation: AtP, AtP*, RelP
edges         every edge of the residual stream: EAP, EAP-IG, RelP
inputs        every token of a prompt: saliency, integrated gradients, occlusion
circuit       a circuit, which is the model with some edges only; `circuit_run` runs it
faithfulness  checks: circuits of all sizes, exact patching of every node and edge
graph         the edges that there are, and their names
rules         rules that replace gradients, as in RelP
pairs         pairs of prompts, as texts or ids
circuit_layout  the positions of a circuit's nodes in a picture
tables        the display of results in a notebook
"""

from . import circuit_run as circuit_run
from . import graph as graph
from . import pairs as pairs
from . import rules as rules
from .circuit import Circuit
from .edges import Edges, edges
from .faithfulness import Curve, agreement, curve, exact_edges, exact_nodes
from .inputs import Inputs, inputs
from .nodes import Nodes, nodes
from .rules import relevance

__all__ = [
    "Circuit",
    "Curve",
    "Edges",
    "Inputs",
    "Nodes",
    "agreement",
    "curve",
    "edges",
    "exact_edges",
    "exact_nodes",
    "inputs",
    "nodes",
    "relevance",
]
