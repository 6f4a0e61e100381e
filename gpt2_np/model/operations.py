"""The protocol of the operations: the functions that `forward` calls, with the same signatures as in `ops`.

Four modules implement it: `ops`, `engine.threaded`, `engine.kernels`, `gradients.joined`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Protocol, cast

from .arrays import Array, Weight


class Operations(Protocol):
    """An implementation of the operations. `ops` says what each one computes, under the same name."""

    def layer_norm(self, x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
        """(…, D) → (…, D)."""
        ...

    def centred(self, x: Array) -> Array:
        """(…, D) → (…, D), in new memory that may be overwritten."""
        ...

    def layer_norm_scale(self, centred: Array, epsilon: float) -> Array:
        """(…, D) → (…, 1)."""
        ...

    def scaled_and_shifted(self, normalized: Array, weight: Array, bias: Array) -> Array:
        """(…, D) → (…, D)."""
        ...

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        """(…, inputs) → (…, outputs)."""
        ...

    def unembed(self, x: Array, lm_head: Weight) -> Array:
        """(…, D) → (…, V)."""
        ...

    def softmax(self, scores: Array) -> Array:
        """(…, S) → (…, S)."""
        ...

    def split_heads(self, x: Array, heads: int) -> tuple[Array, Array, Array]:
        """(B, T, 3·D) → three of (B, T, H, K)."""
        ...

    def attention_scores(self, q: Array, k: Array, lengths: Array, scale: float) -> Array:
        """(B, T, H, K), (B, H, S, K) → (B, H, T, S)."""
        ...

    def mix_values(self, pattern: Array, v: Array) -> Array:
        """(B, H, T, S), (B, H, S, K) → (B, T, H, K)."""
        ...

    def attention(self, q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
        """(B, T, H, K), (B, H, N, K) twice → (B, T, H, K)."""
        ...

    def activate(self, x: Array, name: str, parameters: tuple[Array, ...] = ()) -> Array:
        """(…, F) → (…, F)."""
        ...


NAMES = tuple(name for name in vars(Operations) if not name.startswith("_"))


def with_linear(ops: Operations, linear: Callable[[Array, Weight, Array], Array]) -> Operations:
    """Return the same operations with another `linear`."""
    functions = {name: getattr(ops, name) for name in NAMES}
    return cast(Operations, SimpleNamespace(**(functions | {"linear": linear})))
