"""Circuits in the weights alone: what a head attends to (QK), what it then writes (OV), and in which words.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Millidge & Black 2022, "The Singular Value
Decompositions of Transformer Weight Matrices are Highly Interpretable". Fold the layer norms first
(`processing.fold_ln`) to see the circuits as the norms' outputs meet them; biases play no part here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from decoders.base.ranking import highest

from ..display import described
from ..model.config import Config
from ..model.params import Params, as_array, unembedding

Array = np.ndarray
WORDS = 4096  # of the vocabulary at a time, so that no copy of all in float64 is made


class Factored(NamedTuple):
    """A matrix of low rank as a product, left @ right: (n, K) and (K, m)."""

    left: Array
    right: Array

    def __repr__(self) -> str:
        return described(self)

    def full(self) -> Array:
        """The matrix itself: (n, m)."""
        return self.left @ self.right

    def eigenvalues(self) -> Array:
        """The K eigenvalues that need not be 0 of a square product (complex): those of right @ left."""
        return np.linalg.eigvals((self.right @ self.left).astype(np.float64))

    def svd(self) -> tuple[Array, Array, Array]:
        """U (n, K), singular values (K,), Vᵀ (K, m), without ever making the (n, m) matrix."""
        q1, r1 = np.linalg.qr(self.left.astype(np.float64))
        q2, r2 = np.linalg.qr(self.right.T.astype(np.float64))
        u, s, vt = np.linalg.svd(r1 @ r2.T)
        return q1 @ u, s, vt @ q2.T


def head_weights(params: Params, config: Config, layer: int, head: int) -> tuple[Array, Array, Array, Array]:
    """One head's query, key and value maps, (D, K) each, and its output map (K, D)."""
    check_head(config, layer, head)
    attn, D, K = params.h[layer].attn, config.n_embd, config.head_width
    if not isinstance(attn.c_attn.weight, np.ndarray):
        raise ValueError("circuits need float32 or float64 weights; load the model without a reduced dtype")
    c_attn, c_proj = as_array(attn.c_attn.weight), as_array(attn.c_proj.weight)
    columns = [slice(part * D + head * K, part * D + (head + 1) * K) for part in range(3)]
    q, k, v = (c_attn[:, one] for one in columns)
    return q, k, v, c_proj[head * K : (head + 1) * K]


def check_head(config: Config, layer: int, head: int) -> None:
    """``ValueError`` for a head that the model doesn't have."""
    for what, number, limit in (("layer", layer, config.n_layer), ("head", head, config.n_head)):
        if not 0 <= number < limit:
            raise ValueError(f"{what} must be between 0 and {limit - 1}, got {number}")


def ov_circuit(params: Params, config: Config, layer: int, head: int) -> Factored:
    """Return the map from the stream at a position to what a head writes if it attends there: row vectors (D) → (D)."""
    _, _, v, o = head_weights(params, config, layer, head)
    return Factored(v, o)


def qk_circuit(params: Params, config: Config, layer: int, head: int) -> Factored:
    """Return the matrix by which a query's stream matches a key's: x_query @ (D, D) @ x_key, before scaling."""
    q, k, _, _ = head_weights(params, config, layer, head)
    return Factored(q, k.T)


def full_ov_circuit(params: Params, config: Config, layer: int, head: int) -> Factored:
    """From a token looked at to the logits it raises: (V, K) @ (K, V)."""
    ov = ov_circuit(params, config, layer, head)
    return Factored(params.wte @ ov.left, ov.right @ (params.lm_head * params.ln_f.weight).T)


def full_qk_circuit(params: Params, config: Config, layer: int, head: int) -> Factored:
    """From a query's token to the keys' tokens it wants: (V, K) @ (K, V)."""
    qk = qk_circuit(params, config, layer, head)
    return Factored(params.wte @ qk.left, qk.right @ params.wte.T)


def copying_scores(params: Params, config: Config) -> Array:
    """Return how much each head raises the token that it attends to: Σλ / Σ|λ| over its full OV circuit's eigenvalues,
    (L, H).

    1: it copies; −1: it suppresses (Elhage et al. 2021, "Summarizing OV/QK Matrices").
    """
    words = products_of_words(unembedding(params), params.wte) * params.ln_f.weight[:, None]
    return _eigenvalue_scores(params, config, ov_circuit, words)


def matching_scores(params: Params, config: Config) -> Array:
    """Return how much each head attends to the token it stands on: the same over its full QK circuit, (L, H)."""
    return _eigenvalue_scores(params, config, qk_circuit, products_of_words(params.wte, params.wte))


def products_of_words(left: Array, right: Array) -> Array:
    """Return leftᵀ · right of two (V, D) arrays in float64, some words at a time: (D, D)."""
    parts = (slice(start, start + WORDS) for start in range(0, len(left), WORDS))
    zeros = np.zeros((left.shape[1], right.shape[1]))
    return sum((left[some].astype(np.float64).T @ right[some].astype(np.float64) for some in parts), zeros)


def _eigenvalue_scores(
    params: Params, config: Config, circuit: Callable[[Params, Config, int, int], Factored], words: Array
) -> Array:
    """The scores of full circuits, whose eigenvalues need no (V, K) array: the words enter as one (D, D) matrix.

    A full circuit is (E · left) @ (right · Uᵀ), and its eigenvalues are those of right · (Uᵀ · E) · left, (K, K). For
    queries and keys U is E.
    """
    scores = np.zeros((config.n_layer, config.n_head))
    for layer, head in np.ndindex(*scores.shape):
        one = circuit(params, config, layer, head)
        values = np.linalg.eigvals(one.right.astype(np.float64) @ words @ one.left.astype(np.float64))
        scores[layer, head] = values.sum().real / np.abs(values).sum()
    return scores


def composition_scores(params: Params, config: Config, kind: str) -> Array:
    """Measure how much each later head reads what each earlier one wrote: (L, H, L, H), 0 where the first is not
    earlier.

    ‖W_OV · W‖ / ‖W_OV‖‖W‖ in Frobenius norms, W being the later head's QK circuit read from the query's side ("Q") or
    the key's ("K"), or its OV circuit ("V"). Elhage et al. 2021, "Composition scores".
    """
    if kind not in ("Q", "K", "V"):
        raise ValueError(f"kind must be 'Q', 'K' or 'V', got {kind!r}")
    heads = list(np.ndindex(config.n_layer, config.n_head))
    writes = [ov_circuit(params, config, *head) for head in heads]
    reads = writes if kind == "V" else [qk_circuit(params, config, *head) for head in heads]
    if kind == "K":
        reads = [Factored(read.right.T, read.left.T) for read in reads]
    scores = np.zeros((config.n_layer, config.n_head) * 2)
    for first, write in zip(heads, writes, strict=True):
        for second, read in zip(heads, reads, strict=True):
            if first[0] < second[0]:
                product = Factored(write.left, (write.right @ read.left) @ read.right)
                scores[first + second] = norm(product) / (norm(write) * norm(read))
    return scores


def norm(matrix: Factored) -> float:
    """Return the Frobenius norm, from (K, K) products alone."""
    left, right = (part.astype(np.float64) for part in matrix)
    return float(np.sqrt(max(0.0, ((left.T @ left) * (right @ right.T)).sum())))


class Direction(NamedTuple):
    """One singular direction in words: its strength, and the tokens at its two ends (see `singular_directions`)."""

    strength: float
    tokens_in: list[int]
    tokens_out: list[int]


def singular_directions(
    params: Params, config: Config, layer: int, head: int, *, kind: str = "OV", count: int = 5, tokens: int = 10
) -> list[Direction]:
    """A head's strongest directions against the vocabulary.

    `kind` "OV": looking at ``tokens_in`` raises ``tokens_out``. "QK": standing on ``tokens_in``, it looks for
    ``tokens_out``. A direction's sign is free; it is turned so that the token it reads most strongly is read
    positively.
    """
    if kind not in ("OV", "QK"):
        raise ValueError(f"kind must be 'OV' or 'QK', got {kind!r}")
    circuit = ov_circuit if kind == "OV" else qk_circuit
    u, s, vt = circuit(params, config, layer, head).svd()
    far_end = params.lm_head * params.ln_f.weight if kind == "OV" else params.wte
    directions = []
    for number in range(min(count, len(s))):
        near, far = params.wte @ u[:, number], far_end @ vt[number]
        if near[np.abs(near).argmax()] < 0:
            near, far = -near, -far
        best = [highest(x, tokens).tolist() for x in (near, far)]
        directions.append(Direction(float(s[number]), *best))
    return directions
