"""The protocol of the derivatives: the functions that `backward` calls, with their signatures.

It is the counterpart of `model.operations`. Two modules implement it: `derivatives` and `threaded`.
"""

from __future__ import annotations

from typing import Protocol

from ..model.arrays import Array, Weight


class Derivatives(Protocol):
    """An implementation of the derivatives. Each formula is in `derivatives`, under the same name."""

    def linear(self, gradient: Array, weight: Weight) -> Array:
        """(…, outputs) → (…, inputs)."""
        ...

    def linear_parameters(self, gradient: Array, x: Array) -> tuple[Array, Array]:
        """(…, outputs), (…, inputs) → (inputs, outputs), (outputs,)."""
        ...

    def unembed(self, gradient: Array, lm_head: Weight) -> Array:
        """(…, V) → (…, D)."""
        ...

    def unembed_parameters(self, gradient: Array, x: Array) -> Array:
        """(…, V), (…, D) → (V, D)."""
        ...

    def look_up(self, gradient: Array, ids: Array, table: Array) -> Array:
        """(…, D), (…) and the table, (V, D), which is added to and returned."""
        ...

    def cross_entropy(self, logits: Array, labels: Array, shares: Array, out: Array) -> Array:
        """(N, V), (N,) twice, (N, V), which is written → (N,) float64."""
        ...

    def layer_norm(self, gradient: Array, weight: Array, normalized: Array, scale: Array) -> Array:
        """(…, D) → (…, D)."""
        ...

    def scaled_and_shifted(self, gradient: Array, weight: Array) -> Array:
        """(…, D) → (…, D)."""
        ...

    def scaled_and_shifted_parameters(self, gradient: Array, normalized: Array) -> tuple[Array, Array]:
        """(…, D) twice → (D,) twice."""
        ...

    def divided(self, gradient: Array, scale: Array) -> Array:
        """(…, D), (…, 1) → (…, D)."""
        ...

    def divided_scale(self, gradient: Array, normalized: Array, scale: Array) -> Array:
        """(…, D) twice, (…, 1) → (…, 1)."""
        ...

    def layer_norm_scale(self, gradient: Array, centred: Array, scale: Array) -> Array:
        """(…, 1), (…, D), (…, 1) → (…, D)."""
        ...

    def centred(self, gradient: Array) -> Array:
        """(…, D) → (…, D)."""
        ...

    def attention(
        self, gradient: Array, q: Array, k: Array, v: Array, pattern: Array, scale: float
    ) -> tuple[Array, Array, Array]:
        """(B, T, H, K) four times, (B, H, T, S) → three of (B, T, H, K)."""
        ...

    def mix_values(self, gradient: Array, v: Array) -> Array:
        """(B, T, H, K) twice → (B, H, T, S)."""
        ...

    def mix_values_v(self, gradient: Array, pattern: Array) -> Array:
        """(B, T, H, K), (B, H, T, S) → (B, S, H, K)."""
        ...

    def softmax(self, gradient: Array, p: Array) -> Array:
        """(…, S) twice → (…, S)."""
        ...

    def hide(self, gradient: Array) -> Array:
        """(B, H, T, T) → (B, H, T, T)."""
        ...

    def attention_scores(self, gradient: Array, q: Array, k: Array, scale: float) -> tuple[Array, Array]:
        """(B, H, T, S), (B, T, H, K), (B, S, H, K) → the shapes of q and k."""
        ...

    def split_heads(self, q: Array, k: Array, v: Array) -> Array:
        """(B, T, H, K) three times → (B, T, 3·D)."""
        ...

    def head_results(self, gradient: Array, weight: Weight) -> Array:
        """(B, T, H, D) → (B, T, H, K)."""
        ...

    def head_results_parameters(self, gradient: Array, z: Array) -> Array:
        """(B, T, H, D), (B, T, H, K) → (D, D)."""
        ...

    def activate(self, gradient: Array, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
        """(…, F) twice → (…, F)."""
        ...

    def activate_parameters(
        self, gradient: Array, x: Array, name: str, parameters: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """(…, F) twice → one (1,) for each of the activation's parameters."""
        ...
