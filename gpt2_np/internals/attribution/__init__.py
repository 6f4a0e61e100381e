"""Attribution with gradients, by node, by edge and by input, and checks of its faithfulness.

nodes         every activation: AtP, AtP*, RelP
edges         every edge of the residual stream: EAP, EAP-IG, RelP
circuit       the model with some edges only; `circuit_run` is how it runs
faithfulness  how true it is: circuits of all sizes, exact patching of every node and edge
graph         which edges there are, and their names
rules         what takes a gradient's place
pairs         prompts by pairs, as texts or ids
layout        where a circuit's nodes stand in a picture
tables        what a notebook shows of each result
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
