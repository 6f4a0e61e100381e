"""`derivatives` on every core: the same names, signatures and formulas, with nothing compiled.

A matrix product is one large product over all positions, divided into pieces on threads (`products`). Operations that
treat positions independently call `derivatives` on some positions at a time, on threads, so that intermediate results
stay in a core's cache. Sums over all positions are sums of partial sums, which round less.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..engine.threaded import in_pieces
from ..model.arrays import Array, Weight
from ..model.params import as_array
from ..system.memory import empty
from . import derivatives, heads
from .derivatives import activate_parameters as activate_parameters
from .derivatives import head_results as head_results
from .derivatives import head_results_parameters as head_results_parameters
from .derivatives import hide as hide
from .products import Product, product

FIRST = 8  # numbers of a position that are looked at before all of them
SUMMED = 16  # positions per partial sum; the partial sums are added in float64


def linear(gradient: Array, weight: Weight) -> Array:
    """Compute `derivatives.linear`."""
    return linear_by(product, gradient, weight)


def linear_by(product: Product, gradient: Array, weight: Weight) -> Array:
    """Compute `derivatives.linear` by this matrix product."""
    return _by(product, gradient, as_array(weight).T)


def linear_parameters(gradient: Array, x: Array) -> tuple[Array, Array]:
    """Compute `derivatives.linear_parameters`."""
    rows = gradient.reshape(-1, gradient.shape[-1])
    return linear_weight(rows, x), summed(rows)


def linear_weight(rows: Array, x: Array, product: Product = product) -> Array:
    """Compute the weight's share of `linear_parameters`, given the gradient as (positions, outputs)."""
    inputs = x.reshape(len(rows), -1)
    return product(inputs.T, rows, empty((inputs.shape[1], rows.shape[1]), rows.dtype), None)


def unembed(gradient: Array, lm_head: Weight) -> Array:
    """Compute `derivatives.unembed`."""
    return unembed_by(product, gradient, lm_head)


def unembed_by(product: Product, gradient: Array, lm_head: Weight) -> Array:
    """Compute `derivatives.unembed` by this matrix product; positions and tokens without a gradient are skipped."""
    weight = lm_head if isinstance(lm_head, np.ndarray) else lm_head.dequantize().T
    rows = gradient.reshape(-1, gradient.shape[-1])
    some = with_gradient(rows)
    if some is None:
        return _by(product, gradient, weight)
    out = np.zeros((len(rows), weight.shape[1]), rows.dtype)
    rows = rows[some]
    tokens = np.flatnonzero(rows.any(axis=0))  # two of a logit difference
    few = 8 * len(tokens) < len(weight)
    out[some] = rows[:, tokens] @ weight[tokens] if few else rows @ weight
    return out.reshape(*gradient.shape[:-1], -1)


def unembed_parameters(gradient: Array, x: Array) -> Array:
    """Compute `derivatives.unembed_parameters`."""
    return unembed_parameters_by(product, gradient, x)


def unembed_parameters_by(product: Product, gradient: Array, x: Array) -> Array:
    """Compute `derivatives.unembed_parameters` by this matrix product; positions without a gradient are skipped."""
    rows = gradient.reshape(-1, gradient.shape[-1])
    inputs, some = x.reshape(len(rows), -1), with_gradient(rows)
    if some is not None:
        rows, inputs = rows[some], inputs[some]
    return product(rows.T, inputs, empty((rows.shape[1], inputs.shape[1]), rows.dtype), None)


def with_gradient(rows: Array) -> Array | None:
    """Return which rows are not all 0; None if they are so many that skipping the others doesn't pay."""
    found = np.any(rows[:, :FIRST], axis=-1, out=np.empty(len(rows), bool))
    left = np.flatnonzero(~found)

    def look(some: slice) -> None:
        for row in left[some]:
            found[row] = rows[row].any()

    in_pieces(look, len(left), len(left) * rows.shape[1])
    return np.flatnonzero(found) if 2 * np.count_nonzero(found) < len(rows) else None


def cross_entropy(logits: Array, labels: Array, shares: Array, out: Array) -> Array:
    """As `derivatives.cross_entropy`, some positions at a time."""
    losses = np.empty(len(logits))

    def work(some: slice) -> None:
        losses[some] = derivatives.cross_entropy(logits[some], labels[some], shares[some], out[some])

    in_pieces(work, len(logits), logits.size)
    return losses


def look_up(gradient: Array, ids: Array, table: Array) -> Array:
    """Compute `derivatives.look_up`: gradients of the same row are summed first."""
    order = np.argsort(ids, axis=None, kind="stable")
    rows, starts = np.unique(ids.reshape(-1)[order], return_index=True)
    table[rows] += np.add.reduceat(gradient.reshape(-1, gradient.shape[-1])[order], starts, axis=0)
    return table


def layer_norm(gradient: Array, weight: Array, normalized: Array, scale: Array) -> Array:
    """As `derivatives.layer_norm`, some positions at a time."""
    return _by_rows(lambda g, n, s: derivatives.layer_norm(g, weight, n, s), gradient, normalized, scale)


def scaled_and_shifted(gradient: Array, weight: Array) -> Array:
    """As `derivatives.scaled_and_shifted`, some positions at a time."""
    return _by_rows(lambda g: derivatives.scaled_and_shifted(g, weight), gradient)


def scaled_and_shifted_parameters(gradient: Array, normalized: Array) -> tuple[Array, Array]:
    """As `derivatives.scaled_and_shifted_parameters`."""
    D = gradient.shape[-1]
    g = gradient.reshape(-1, D)
    return summed(g, normalized.reshape(-1, D)), summed(g)


def divided(gradient: Array, scale: Array) -> Array:
    """As `derivatives.divided`, some positions at a time."""
    return _by_rows(derivatives.divided, gradient, scale)


def divided_scale(gradient: Array, normalized: Array, scale: Array) -> Array:
    """As `derivatives.divided_scale`, some positions at a time."""
    return _by_rows(derivatives.divided_scale, gradient, normalized, scale, width=1)


def layer_norm_scale(gradient: Array, centred: Array, scale: Array) -> Array:
    """As `derivatives.layer_norm_scale`, some positions at a time."""
    return _by_rows(lambda c, g, s: derivatives.layer_norm_scale(g, c, s), centred, gradient, scale)


def centred(gradient: Array) -> Array:
    """As `derivatives.centred`, some positions at a time."""
    return _by_rows(derivatives.centred, gradient)


def attention(
    gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float
) -> tuple[Array, Array, Array]:
    """Compute `derivatives.attention` for a causal pattern, head by head, skipping the zeros."""
    return heads.attention(gradient, q, k, v, pattern, scale)


def mix_values(gradient: Array, v: Array) -> Array:
    """As `derivatives.mix_values`."""
    return heads.of_weights(gradient, v)


def mix_values_v(gradient: Array, pattern: Array) -> Array:
    """As `derivatives.mix_values_v`."""
    return heads.gathered(pattern, gradient)


def softmax(gradient: Array, p: Array) -> Array:
    """As `derivatives.softmax`, some queries at a time."""
    return _by_rows(derivatives.softmax, gradient, p)


def attention_scores(gradient: Array, q: Array, k: Array, scale: float) -> tuple[Array, Array]:
    """As `derivatives.attention_scores`."""
    of_q, of_k = heads.weighted(gradient, k), heads.gathered(gradient, q)
    of_q *= scale
    of_k *= scale
    return of_q, of_k


def split_heads(q: Array, k: Array, v: Array) -> Array:
    """As `derivatives.split_heads`."""
    B, T, H, K = q.shape
    out = empty((B, T, 3, H, K), q.dtype)
    rows = out.reshape(B * T, 3, H, K)
    parts = [part.reshape(B * T, H, K) for part in (q, k, v)]

    def fill(some: slice) -> None:
        for number, part in enumerate(parts):
            rows[some, number] = part[some]

    in_pieces(fill, B * T, out.size)
    return out.reshape(B, T, -1)


def activate(gradient: Array, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
    """As `derivatives.activate`, some positions at a time."""
    return _by_rows(lambda g, some: derivatives.activate(g, some, name, parameters), gradient, x)


def _by(product: Product, x: Array, weight: Array) -> Array:
    """Multiply x by a matrix, as one product over all positions: (…, inputs) @ (inputs, outputs)."""
    rows = x.reshape(-1, x.shape[-1])
    out = product(rows, weight, empty((len(rows), weight.shape[1]), rows.dtype), None)
    return out.reshape(*x.shape[:-1], -1)


def _by_rows(function: Callable[..., Array], *arrays: Array, width: int = 0) -> Array:
    """Compute ``function(*arrays)`` piece by piece, for a function that treats positions independently.

    `width` is the length of its results; 0 means the first array's.
    """
    shape = arrays[0].shape
    rows = [array.reshape(-1, array.shape[-1]) for array in arrays]
    out = empty((len(rows[0]), width or shape[-1]), arrays[0].dtype)

    def fill(some: slice) -> None:
        out[some] = function(*(array[some] for array in rows))

    in_pieces(fill, len(out), rows[0].size)
    return out.reshape(*shape[:-1], -1)


def summed(x: Array, factor: Array | None = None) -> Array:
    """Return the sum over positions of x, or of x · factor: (positions, outputs) → (outputs,)."""
    some = [slice(start, start + SUMMED) for start in range(0, len(x), SUMMED)]
    sums = [(x[part] if factor is None else x[part] * factor[part]).sum(axis=0) for part in some]
    return np.stack(sums).sum(axis=0, dtype=np.float64).astype(x.dtype)
