"""What is done with many features or logits: activation functions, sums of directions, losses and divergences.

ReLU, top-k, JumpReLU and gated features overwrite their (n, F) argument. All this is bound by memory bandwidth, so it
passes over memory as few times as possible, and is called for some rows at a time. `compiled_functions` has twins,
which pass over it once.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
NANOSECONDS = (8000.0, 0.65)  # of a sparse product: a row, and each number of a direction


def relu(pre: Array, bias: Array) -> None:
    """max(pre + bias, 0). Bricken et al. 2023, "Towards Monosemanticity"."""
    np.add(pre, bias, out=pre)
    np.maximum(pre, 0, out=pre)


def jumprelu(pre: Array, bias: Array, threshold: Array) -> None:
    """pre + bias where it is above the threshold and above 0, else 0. Rajamanoharan et al. 2024, "Jumping Ahead"."""
    np.add(pre, bias, out=pre)
    np.multiply(pre, pre > np.maximum(threshold, 0), out=pre)  # several times as fast as writing where a mask says


def gated(pre: Array, b_gate: Array, magnitude: Array, b_mag: Array) -> None:
    """max(pre · magnitude + b_mag, 0) where pre + b_gate is above 0, else 0. Rajamanoharan et al. 2024, "Gated".

    `magnitude` is exp(r_mag): the weights of the magnitudes are those of the gate times it, so one product serves both.
    """
    is_open = pre > -b_gate
    np.multiply(pre, magnitude, out=pre)
    np.add(pre, b_mag, out=pre)
    np.maximum(pre, 0, out=pre)
    np.multiply(pre, is_open, out=pre)


def topk(pre: Array, bias: Array, k: int, norms: Array | None = None, *, signed: bool = False) -> None:
    """The k largest of (pre + bias) · norms in each row where they are above 0, else 0. Gao et al. 2024, eq. 3.

    With `signed` the k largest in size, with their signs. Equal values count in the order of the features.
    """
    np.add(pre, bias, out=pre)
    if norms is not None:
        np.multiply(pre, norms, out=pre)
    rows, columns = largest(np.abs(pre) if signed else pre, k)
    values = pre[rows, columns]
    pre.fill(0)
    pre[rows, columns] = values


def largest(values: Array, k: int) -> tuple[Array, Array]:
    """Row and column numbers of the k largest values above 0 of each row of (n, F), row by row, the largest first.

    Sorting a row would cost more than the product that made it. The k-th largest among the largest values of some
    k or more groups of columns can't be above the k-th largest of all: what is at least that is a little more than k
    values, and those are sorted. A row with a NaN keeps its NaNs.
    """
    n, F = values.shape
    size = max(1, F // (4 * k))
    groups = F // size
    tops = values[:, : size * groups].reshape(n, size, groups).max(axis=1) if size > 1 else values
    bound = np.partition(tops, groups - k, axis=1)[:, groups - k : groups - k + 1]
    least = np.where(bound > 0, bound, np.finfo(values.dtype).smallest_subnormal)
    enough = values >= least
    if np.isnan(tops.sum()) or np.isnan(values[:, size * groups :]).any():
        enough |= np.isnan(values)  # rarely: so that a broken row is seen to be one
    rows, columns = np.divmod(np.flatnonzero(enough), F)
    found = values[rows, columns]
    order = np.lexsort((columns, -found, rows))  # NaN comes last
    rows, columns, found = rows[order], columns[order], found[order]
    kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < k
    kept |= found != found  # NaN
    return rows[kept], columns[kept]


def sparse_product(features: Array, directions: Array, out: Array) -> None:
    """Compute features @ directions, (n, F) and (F, O), reading only the directions of features that aren't 0."""
    for row, some in zip(out, features, strict=True):
        used = np.flatnonzero(some)
        np.matmul(some[used], directions[used], out=row)


def divergence(plain: Array, other: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Return the loss of two runs' logits at each position, and KL(plain ‖ other): (n,) float64 nats each.

    (n, V), and (n, V) or one row that stands for all, (1, V); (n,) ids.
    """
    at = np.arange(len(plain))
    p, q = (x - x.max(axis=1, keepdims=True) for x in (plain, other))
    likely, other_likely = np.exp(p), np.exp(q)
    log_p, log_q = (np.log(x.sum(axis=1).astype(np.float64)) for x in (likely, other_likely))
    mean = np.einsum("nv,nv->n", likely, p - q) / likely.sum(axis=1)
    return log_p - p[at, targets], log_q - q[at if len(q) > 1 else 0, targets], mean - log_p + log_q
