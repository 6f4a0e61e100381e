"""An attribution graph as a panel of the page of a prompt: `page_graph.html`, and the data that it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from decoders.base.ranking import highest

from ..session.model import Model
from .dictionaries import Dictionary, logit_effects
from .dictionaries.graph import Graph, graph
from .dictionaries.graph_effects import Silenced, silence

Array = np.ndarray
FEATURES, EDGES, WORDS = 40, 300, 8  # how many are shown, and how many words of each feature
SILENCED = 100  # features that are silenced to see whether the graph is true


def fragment() -> str:
    """The panel's HTML and script, which go into the page's ``main``."""
    return Path(__file__).with_name("page_graph.html").read_text(encoding="utf-8")


def panel(
    model: Model,
    transcoders: Sequence[Dictionary],
    ids: Sequence[int],
    asked: tuple[int, int],
    words: Callable[[Sequence[int]], list[str]],
) -> dict[str, object]:
    """Return the panel's data, as JSON can hold it: the pruned graph of one token's logit minus another's after a
    prompt.

    `words` gives tokens as the page shows them. Nodes are numbered; edges are [from, to, what is added, its share].
    """
    whole = graph(model, transcoders, list(ids), *asked)
    done = silence(model, transcoders, whole, SILENCED)
    some = whole.pruned(FEATURES)
    strongest = some.strongest(EDGES)
    numbers = {node: number for number, node in enumerate(used(some, strongest))}
    effects = by_feature(whole, done)
    first, second = words(list(asked))
    correlation = done.correlation
    return {
        "token": first,
        "other": second,
        "layers": model.config.n_layer,
        "features": len(whole.activations),
        "gap": whole.gap(),
        "silenced": len(done.which),
        "correlation": None if np.isnan(correlation) else round(correlation, 3),
        "nodes": [
            {"kind": kind, "layer": layer, "at": at, "number": number} | effects.get((kind, layer, at, number), {})
            for kind, layer, at, number in numbers
        ],
        "words": moved(model, transcoders, {node[1::2] for node in numbers if node[0] == "feature"}, words),
        "edges": [
            [numbers[some.sources[source]], numbers[some.targets[target]], round(weight, 4), round(flow, 6)]
            for target, source, weight, flow in strongest
        ],
    }


def used(some: Graph, strongest: Sequence[tuple[int, int, float, float]]) -> list[tuple[str, int, int, int]]:
    """The nodes that the strongest edges join, and the logit."""
    nodes = {some.targets[-1]}
    for target, source, *_ in strongest:
        nodes |= {some.targets[target], some.sources[source]}
    return sorted(nodes, key=lambda one: one[1:])


def by_feature(whole: Graph, done: Silenced) -> dict[tuple[str, int, int, int], dict[str, float]]:
    """Return for each feature its activation, the predicted effect of silencing it, and the measured effect if it was
    silenced.
    """
    predicted, measured = whole.effects(), dict(zip(done.which.tolist(), done.measured.tolist(), strict=True))
    found = {}
    for number, (node, activation) in enumerate(zip(whole.targets[:-1], whole.activations, strict=True)):
        about = {"value": round(float(activation), 3), "predicted": round(float(predicted[number]), 3)}
        found[node] = about | ({"measured": round(measured[number], 3)} if number in measured else {})
    return found


def moved(
    model: Model,
    transcoders: Sequence[Dictionary],
    features: set[tuple[int, ...]],
    words: Callable[[Sequence[int]], list[str]],
) -> dict[str, list[list[str]]]:
    """By ``layer.feature`` the words that a feature raises most by itself, and those that it lowers."""
    found = {}
    for layer, some in groupby(sorted(features), lambda one: one[0]):
        numbers = [feature for _, feature in some]
        for feature, effect in zip(numbers, logit_effects(model, transcoders[layer], numbers), strict=True):
            found[f"{layer}.{feature}"] = [words(highest(row, WORDS).tolist()) for row in (effect, -effect)]
    return found
