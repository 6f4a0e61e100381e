"""Neuron dashboards: where in a corpus an MLP neuron fires, how often, and which tokens it raises.

Bills et al. 2023, "Language models can explain neurons in language models"; Geva et al. 2022, "Transformer
Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary Space".
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from decoders.base.ranking import highest

from ..display import NUMBERS, Texts, boxed, described, table, visible, words
from ..model.params import as_array, unembedding
from ..session.model import Model

Array = np.ndarray
BINS = 60


@dataclass(frozen=True)
class Example:
    """A place where a neuron or a feature fired: `value` at `position` of text number `text`.

    `ids` and `values` are of the places around it, from `start` on.
    """

    value: float
    text: int
    position: int
    start: int
    ids: list[int]
    values: list[float]


@dataclass(frozen=True, repr=False)
class Dashboard:
    """One neuron. `examples` come strongest first, one of each text in which it fires.

    `histogram` counts values between `edges`. `raises` and `lowers` are the ids whose logits it moves most when it
    fires, seen through the final norm's gain.
    """

    layer: int
    neuron: int
    examples: list[Example]
    histogram: Array
    edges: Array
    share_active: float
    raises: list[int]
    lowers: list[int]
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        title = f"Layer {self.layer}, neuron {self.neuron}: active at {self.share_active:.1%}"
        return boxed(*said(self.raises, self.lowers, self.texts), *places(self.examples, self.texts), title=title)


def said(raises: Sequence[int], lowers: Sequence[int], texts: Texts) -> list[str]:
    """Show the words that something raises and lowers."""
    rows = [
        (name, "  ".join(map(visible, texts(ids)))) for name, ids in (("raises", raises), ("lowers", lowers)) if ids
    ]
    return [table(rows)] if rows else []


def places(examples: Sequence[Example], texts: Texts) -> list[str]:
    """Show the strongest places of a corpus: each is a text, its tokens tinted by their values."""
    most = max((abs(one.value) for one in examples), default=1.0) or 1.0
    return [
        words(texts(one.ids), [value / most for value in one.values], [f"{value:.3g}" for value in one.values])
        for one in examples
    ]


def dashboards(
    model: Model,
    texts: Iterable[Sequence[int]],
    neurons: Sequence[tuple[int, int]],
    *,
    examples: int = 8,
    context: int = 12,
    tokens: int = 10,
    progress: Callable[[int], object] | None = None,
) -> list[Dashboard]:
    """A dashboard for each (layer, neuron), from one pass over texts of ids; the texts are never kept.

    `context` is how many tokens are shown on either side; "active" is a value above 0. `progress` is told each text's
    tokens. ``ValueError`` for a neuron that the model doesn't have, or a corpus with no text.
    """
    L, F = model.config.n_layer, model.config.mlp_width
    for layer, neuron in neurons:
        if not (0 <= layer < L and 0 <= neuron < F):
            raise ValueError(
                f"neurons must be (layer, neuron) with layers below {L} and neurons below {F}, got ({layer}, {neuron})"
            )
    edges = np.linspace(-1, 11, BINS + 1)
    counts = np.zeros((len(neurons), BINS), np.int64)
    active, seen = np.zeros(len(neurons), np.int64), 0
    best: list[list[tuple[float, int, Example]]] = [[] for _ in neurons]
    names = sorted({f"blocks.{layer}.mlp.post" for layer, _ in neurons})
    for number, text in enumerate(texts):
        ids = np.atleast_2d(text)
        _, cache = model.run_with_cache(ids, names)
        for at, (layer, neuron) in enumerate(neurons):
            values = cache["post", layer][0, :, neuron]
            counts[at] += np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
            active[at] += int((values > 0).sum())
            if not values.max() > 0:
                continue  # a place where it doesn't fire is no example
            entry = (float(values.max()), -number, _example(ids[0], values, number, context))
            if len(best[at]) < examples:
                heapq.heappush(best[at], entry)
            else:
                heapq.heappushpop(best[at], entry)
        seen += ids.shape[1]
        if progress is not None:
            progress(ids.shape[1])
    if not seen:
        raise ValueError("neuron dashboards need at least one text, got none")
    results = []
    for at, (layer, neuron) in enumerate(neurons):
        writes = as_array(model.params.h[layer].mlp.c_proj.weight)[neuron]
        effect = unembedding(model.params) @ (writes * model.params.ln_f.weight)
        raises, lowers = (ids.tolist() for ids in ends(effect, tokens))
        results.append(
            Dashboard(
                layer,
                neuron,
                [entry[2] for entry in sorted(best[at], reverse=True)],
                counts[at],
                edges,
                active[at] / seen,
                raises,
                lowers,
                model.texts,
            )
        )
    return results


def ends(values: Array, count: int) -> tuple[Array, Array]:
    """Return the places of the highest and of the lowest of (V,) values, the furthest first.

    As a sort from the highest down has them, read from either end: of equal ones the first comes first among the
    highest, the last among the lowest.
    """
    return highest(values, count), len(values) - 1 - highest(-values[::-1], count)


def _example(ids: Array, values: Array, number: int, context: int) -> Example:
    position = int(values.argmax())
    start, end = max(0, position - context), position + context + 1
    return Example(
        float(values[position]),
        number,
        position,
        start,
        ids[start:end].tolist(),
        [float(value) for value in values[start:end]],
    )
