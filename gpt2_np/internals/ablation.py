"""Ablation: the change of a metric when a component's output is replaced.

Zero, mean and resample ablation as compared by Chan et al. 2022, "Causal Scrubbing", and Wang et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..model.edits import Change, Part
from ..session.model import Model
from .variants import Metric, Variant, grid, run_variants

Array = np.ndarray
HOW = ("zero", "mean", "resample")
WHAT = {"heads": "attn.z", "mlps": "mlp_out", "attention": "attn_out", "positions": "resid_pre"}


def ablate(
    model: Model,
    ids: str | Sequence[int] | Array,
    metric: Metric,
    *,
    what: str = "heads",
    how: str = "zero",
    reference: Array | None = None,
    seed: int = 0,
    batch: int = 32,
    prepend_bos: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Array:
    """Return the metric with each component ablated in turn.

    `what`: "heads" (their ``z``), (L, H) scores; "mlps" or "attention" (a layer's output), (L,); "positions" (the
    residual stream before a layer at one position), (L, T). `how`: "zero"; "mean", over the texts and positions of
    `reference`, (n, T) ids; "resample", each position's value in a text of `reference` drawn by `seed`.
    """
    if what not in WHAT:
        raise ValueError(f"what must be one of {', '.join(WHAT)}, got {what!r}")
    row = model.check_ids(model.to_ids(ids, prepend_bos=prepend_bos))
    point, T = WHAT[what], row.shape[1]
    values = replacements(model, [f"blocks.*.{point}"], how, T, reference, seed)
    sizes = {"heads": (model.config.n_head,), "positions": (T,)}.get(what, ())
    variants: list[Variant] = []
    for layer, *place in grid(model.config.n_layer, *sizes):
        name = f"blocks.{layer}.{point}"
        where = {"heads": "heads", "positions": "positions"}.get(what)
        variants.append({name: Part(_constant(values.get(name)), **({where: place[0]} if where else {}))})
    scores = run_variants(model, row[0], variants, metric, batch=batch, progress=progress)
    return scores.reshape(model.config.n_layer, *sizes)


def replacements(
    model: Model, names: Sequence[str], how: str, T: int, reference: Array | None = None, seed: int = 0
) -> dict[str, Array]:
    """Return the replacement activations, name → (1, T, …) array; empty for "zero" (see `ablate`)."""
    if how not in HOW:
        raise ValueError(f"how must be one of {', '.join(HOW)}, got {how!r}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if how == "zero":
        return {}
    if reference is None:
        raise ValueError(f"{how} ablation needs reference texts: (n, T) ids to take the values from")
    texts = model.check_ids(reference)
    if how == "resample":
        texts = texts[np.random.default_rng(seed).integers(len(texts), size=1)]
        if texts.shape[1] < T:
            raise ValueError(f"resample ablation needs reference texts of at least {T} tokens, got {texts.shape[1]}")
        return dict(model.run_with_cache(texts[:, :T], names)[1])
    _, cache = model.run_with_cache(texts, names)
    means = {name: x.mean(axis=(0, 1), keepdims=True, dtype=np.float64).astype(x.dtype) for name, x in cache.items()}
    return {name: np.repeat(mean, T, axis=1) for name, mean in means.items()}


def _constant(value: Array | None) -> Change:
    return np.zeros_like if value is None else value
