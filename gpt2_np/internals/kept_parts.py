"""Whole circuits kept while everything else is ablated, and heads ablated one after another.

Wang et al. 2022, "Interpretability in the Wild", section 3 (a circuit is what is left when all else is replaced by its
mean over texts of the same form); Michel et al. 2019, "Are Sixteen Heads Really Better than One?" (curves over heads).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..model.edits import AnyEdit, Part
from ..session.model import Model
from .ablation import replacements
from .variants import Metric

Array = np.ndarray
Head = tuple[int, int]  # layer, head
HOW = ("zero", "mean", "position mean", "resample")


def silenced(model: Model, heads: Iterable[Head], mlps: Iterable[int], values: dict[str, Array]) -> dict[str, AnyEdit]:
    """Return the edits that replace the outputs of some heads (their ``z``) and MLPs by `values`, name → (1, T, …), or
    by 0.

    `values` are those of `silence_values`. ``ValueError`` for a head or layer that the model doesn't have.
    """
    by_layer: dict[int, list[int]] = {}
    for layer, head in _checked_heads(model, heads):
        by_layer.setdefault(layer, []).append(head)
    edits: dict[str, AnyEdit] = {}
    for layer, some in sorted(by_layer.items()):
        name = f"blocks.{layer}.attn.z"
        edits[name] = Part(_value(values.get(name)), heads=some)
    for layer in _checked_layers(model, mlps):
        name = f"blocks.{layer}.mlp_out"
        edits[name] = _value(values.get(name))
    return edits


def only(model: Model, heads: Iterable[Head], mlps: Iterable[int], values: dict[str, Array]) -> dict[str, AnyEdit]:
    """Return the edits that leave these heads and MLPs as they are and replace all others: see `silenced`."""
    config = model.config
    kept, spoken = set(_checked_heads(model, heads)), set(_checked_layers(model, mlps))
    others = [head for head in np.ndindex(config.n_layer, config.n_head) if head not in kept]
    return silenced(model, others, [layer for layer in range(config.n_layer) if layer not in spoken], values)


def silence_values(model: Model, how: str, T: int, reference: Array | None = None, seed: int = 0) -> dict[str, Array]:
    """Return the replacements of heads and MLPs in texts of T ids: name → (1, T, …); nothing for "zero".

    "mean" is over the texts and positions of `reference`, (n, at least T) ids; "position mean" over its texts, position
    by position, as Wang et al. do, whose texts have one form; "resample" takes one of its texts, drawn by `seed`.
    """
    names = ["blocks.*.attn.z", "blocks.*.mlp_out"]
    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}, got {how!r}")
    if how != "position mean":
        return replacements(model, names, how, T, reference, seed)
    if reference is None:
        raise ValueError("position mean ablation needs reference texts: (n, T) ids to take the values from")
    texts = model.check_ids(reference)
    if texts.shape[1] < T:
        raise ValueError(f"position mean ablation needs reference texts of at least {T} tokens, got {texts.shape[1]}")
    _, cache = model.run_with_cache(texts[:, :T], names)
    return {name: x.mean(axis=0, keepdims=True, dtype=np.float64).astype(x.dtype) for name, x in cache.items()}


def measured(model: Model, ids: Array, edits: dict[str, AnyEdit], metric: Metric) -> Array:
    """The metric of an edited run of texts (n, T): (n,) float64. ``ValueError`` where activations overflow."""
    logits, _ = model.run_with_edits(model.check_ids(ids), edits)
    return np.asarray(metric(logits), np.float64)


def ablation_curve(
    model: Model,
    ids: Sequence[int] | Array,
    metric: Metric,
    heads: Sequence[Head],
    *,
    how: str = "zero",
    reference: Array | None = None,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> Array:
    """Return the metric with none, one, two, … of the heads ablated, in order: (heads + 1, n) for texts (n, T).

    What is silenced stays silent. `metric` gives each text a number. `progress` is told 1 for each run.
    """
    texts = model.check_ids(ids)
    values, rows = silence_values(model, how, texts.shape[1], reference, seed), []
    _checked_heads(model, heads)
    for count in range(len(heads) + 1):
        rows.append(measured(model, texts, silenced(model, heads[:count], [], values), metric))
        if progress is not None:
            progress(1)
    return np.stack(rows)


def circuit_alone(
    model: Model,
    ids: Sequence[int] | Array,
    metric: Metric,
    heads: Iterable[Head],
    mlps: Iterable[int] | None = None,
    *,
    how: str = "zero",
    reference: Array | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """Run a circuit of heads and MLPs (None: all MLPs) alone, and the model without it: the metric of texts (n, T),
    each (n,).

    "whole" is the model as it is, "circuit" has all else silenced, "rest" has the circuit silenced, "nothing" both.
    A circuit is faithful where "circuit" is near "whole", and complete where "rest" is near "nothing".
    """
    texts, heads = model.check_ids(ids), list(heads)
    every = range(model.config.n_layer)
    spoken = list(every if mlps is None else mlps)
    values = silence_values(model, how, texts.shape[1], reference, seed)
    taken_out = [] if mlps is None else spoken  # MLPs that were never in question stay in both
    return {
        "whole": measured(model, texts, {}, metric),
        "circuit": measured(model, texts, only(model, heads, spoken, values), metric),
        "rest": measured(model, texts, silenced(model, heads, taken_out, values), metric),
        "nothing": measured(model, texts, only(model, [], every if mlps is None else [], values), metric),
    }


def _value(value: Array | None) -> Any:
    return np.zeros_like if value is None else value


def _checked_heads(model: Model, heads: Iterable[Head]) -> list[Head]:
    L, H = model.config.n_layer, model.config.n_head
    found = [(int(layer), int(head)) for layer, head in heads]
    for layer, head in found:
        if not (0 <= layer < L and 0 <= head < H):
            raise ValueError(f"a head must be a layer below {L} and a number below {H}, got {layer}.{head}")
    return found


def _checked_layers(model: Model, layers: Iterable[int]) -> list[int]:
    found = [int(layer) for layer in layers]
    for layer in found:
        if not 0 <= layer < model.config.n_layer:
            raise ValueError(f"an MLP's layer must be between 0 and {model.config.n_layer - 1}, got {layer}")
    return found
