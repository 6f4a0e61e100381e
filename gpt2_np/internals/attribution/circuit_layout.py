"""The positions of a circuit's nodes and edges in a picture, whatever draws it: the input is on the left, the logits
are on the right.

Layers follow each other from left to right, a layer's heads stand above one another, MLPs in the lowest row. An edge
into a head ends at its query, key or value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import graph

MOST_EDGES = 60  # more can't be told apart
PORTS = {"q": 0.22, "k": 0.0, "v": -0.22}  # where an edge enters a head, beside its middle


class Edge(NamedTuple):
    """One edge of a picture: its sender, the node that reads it, the input of a head that it enters, its score."""

    sender: str
    receiver: str
    part: str
    score: float


def strongest(circuit: Any, most: int = MOST_EDGES) -> list[Edge]:
    """Return the edges of a `Circuit` with the largest scores, the largest first."""
    left, right = graph.senders(circuit.model.config), graph.receivers(circuit.model.config)
    places = np.argwhere(circuit.edges)
    order = np.argsort(-np.abs(circuit.scores[circuit.edges]), kind="stable")[:most]
    return [Edge(left[s], *reader(right[r]), float(circuit.scores[s, r])) for s, r in places[order]]


def reader(receiver: str) -> tuple[str, str]:
    """Return the node of a receiver, and which of the node's inputs it is: ``a0.h1<q>`` → (``a0.h1``, ``q``)."""
    name, _, part = receiver.partition("<")
    return name, part.removesuffix(">")


def label(name: str) -> str:
    """Return a node's label in a picture: ``a3.h7`` → "3.7", ``m3`` → "MLP 3"."""
    if name.startswith("a"):
        return name[1:].replace(".h", ".")
    return f"MLP {name[1:]}" if name.startswith("m") else name


def positions(edges: list[Edge]) -> dict[str, tuple[float, float]]:
    """Return where these edges' nodes stand, y upwards: columns by layer, every other layer half a step higher."""
    names = {name for edge in edges for name in (edge.sender, edge.receiver)} | {"input", "logits"}
    columns: dict[float, list[str]] = {}
    for name in sorted(names):
        columns.setdefault(_column(name), []).append(name)
    at = {}
    for x, column in enumerate(sorted(columns)):
        for number, name in enumerate(sorted(columns[column], key=_head)):
            at[name] = (float(x), 1.1 + number + 0.5 * (column % 2) if ".h" in name else 0.0)
    return at


def bend(x: float, y: float, to_x: float, to_y: float) -> float:
    """Return how an edge bends: below the lowest row if both ends are there, above if it falls far, else hardly."""
    if to_x - x <= 1:
        return 0.0
    if y == to_y == 0:
        return 0.28
    return -0.18 if to_y < y else 0.08


def _column(name: str) -> float:
    if name in ("input", "logits"):
        return -1.0 if name == "input" else float("inf")
    return float(name[1:].split(".")[0]) + (0.5 if name.startswith("m") else 0.0)


def _head(name: str) -> int:
    return int(name.split(".h")[1]) if ".h" in name else 0
