"""AdamW, as ``torch.optim.AdamW`` computes it, over a whole model at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from ..display import described
from ..engine import available
from ..engine.threaded import each, threads
from ..model.params import Tree
from ..system.memory import empty, zeros
from . import update
from .tree import leaves, rebuilt

Array = np.ndarray
PIECE = 1 << 14  # numbers that a thread updates at a time


class State(NamedTuple):
    """AdamW's state: the number of steps done, and the running means of gradients and of their squares.

    ``mean`` and ``square`` are nested as the parameters are.
    """

    step: int
    mean: Any
    square: Any

    def __repr__(self) -> str:
        return described(self)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2), exactly ``torch.optim.AdamW``'s.

    `decayed` says what `weight_decay` acts on: "all" parameters, as torch does unless told otherwise, or "matrices",
    everything with two dimensions, embeddings included, as nanoGPT groups them. `backend` is "numba" (compiled, one
    pass over memory, for float32; the default where Numba is installed) or "numpy". ``ValueError`` for a number out of
    its range.

    Examples:
        >>> import numpy as np
        >>> from gpt2_np.training import AdamW
        >>> params, grads = {"w": np.ones(3, np.float32)}, {"w": np.array([1, -1, 0], np.float32)}
        >>> params, state = AdamW(0.1, weight_decay=0.0).step(params, grads, None)
        >>> params["w"].round(3).tolist(), state.step
        ([0.8999999761581421, 1.100000023841858, 1.0], 1)
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    decayed: Literal["all", "matrices"] = "all"
    backend: available.Backend = field(default_factory=available.default)

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if self.decayed not in ("all", "matrices"):
            raise ValueError(f"decayed must be one of all, matrices, got {self.decayed!r}")
        available.chosen(self.backend)

    def step(
        self,
        params: Tree,
        grads: Tree,
        state: State | None,
        donate: bool = False,
        *,
        learning_rate: float | None = None,
        scale: float = 1.0,
    ) -> tuple[Tree, State]:
        """The parameters after one step, and the state for the next one; `state` is None at first.

        `params` are `Params` or any nest of tuples and dicts of float32 or float64 arrays, `grads` gradients of the
        same nest. `learning_rate` is this step's, where a schedule changes it; every gradient is multiplied by `scale`
        first (`clipping`). With `donate` the buffers of `params` and `state` may be written to and must not be read
        again, which saves their copies; without it nothing that was given changes. ``ValueError`` for parameters of a
        reduced precision or gradients of other shapes.
        """
        old, given = leaves(params), leaves(grads)
        check(old, given)
        means = [zeros(one.shape, one.dtype) for one in old] if state is None else leaves(state.mean)
        squares = [zeros(one.shape, one.dtype) for one in old] if state is None else leaves(state.square)
        number = 1 if state is None else state.step + 1
        keep = donate or state is None  # new zeros belong to nobody else
        new = [owned(one, donate) for one in old]
        means, squares = [owned(one, keep) for one in means], [owned(one, keep) for one in squares]
        rate = self.learning_rate if learning_rate is None else learning_rate
        both = [
            update.constants(number, rate, self.betas, self.epsilon, decay, scale) for decay in (0.0, self.weight_decay)
        ]
        parts = [
            Part(flat(one), flat(gradient), flat(mean), flat(square), both[self.decayed == "all" or one.ndim >= 2])
            for one, gradient, mean, square in zip(new, given, means, squares, strict=True)
        ]
        if self.backend == "numba" and old[0].dtype == np.float32 and available.loads():
            update_compiled(parts)
        else:
            update_threaded(parts)
        mean, square = (params, params) if state is None else (state.mean, state.square)
        return rebuilt(params, new), State(number, rebuilt(mean, means), rebuilt(square, squares))


class Part(NamedTuple):
    """What one parameter's update takes, each array in one dimension."""

    parameter: Array
    gradient: Array
    mean: Array
    square: Array
    constants: update.Constants

    def __repr__(self) -> str:
        return described(self)

    def piece(self, some: slice) -> Part:
        """Return the same of some numbers."""
        arrays = self.parameter[some], self.gradient[some], self.mean[some], self.square[some]
        return Part(*arrays, self.constants)


def update_threaded(parts: list[Part]) -> None:
    """Run `update.adamw` on PIECE numbers at a time, on threads."""
    pieces = [(part, slice(start, start + PIECE)) for part in parts for start in range(0, part.parameter.size, PIECE)]
    each(lambda one: update.adamw(*one[0].piece(one[1])), pieces, sum(part.parameter.size for part in parts))


def update_compiled(parts: list[Part]) -> None:
    """Compute `update_threaded` in one pass over memory, in float32."""
    from ..engine.kernels.adamw import adamw

    workers = threads()
    for part in parts:
        adamw(*part, workers=workers)


def flat(array: Array) -> Array:
    """Return an array's numbers in one dimension, without a copy where that is possible."""
    return np.ascontiguousarray(array).reshape(-1)


def owned(array: Array, donated: bool) -> Array:
    """Return a writable contiguous array: the given one if it was donated and is one, else a copy."""
    if donated and array.flags.writeable and array.flags.c_contiguous:
        return array
    copy = empty(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


def check(params: list[Array], grads: list[Array]) -> None:
    """Raise ``ValueError`` for parameters that can't be trained, or gradients that don't belong to them."""
    for one in params:
        if not isinstance(one, np.ndarray) or one.dtype not in (np.float32, np.float64):
            kind = getattr(one, "dtype", type(one).__name__)
            raise ValueError(f"parameters must be float32 or float64 to be trained, got {kind}")
    if len(params) != len(grads):
        raise ValueError(f"there must be a gradient for each of {len(params)} parameters, got {len(grads)}")
    for one, gradient in zip(params, grads, strict=True):
        if gradient.shape != one.shape or gradient.dtype != params[0].dtype or one.dtype != params[0].dtype:
            kinds = f"{params[0].dtype} {one.shape}, got {gradient.dtype} {gradient.shape} for {one.dtype}"
            raise ValueError(f"a gradient must be of its parameter's shape and dtype, {kinds}")
