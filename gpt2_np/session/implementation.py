"""The one place where an implementation is chosen: compiled kernels, the readable path, or one that a caller passes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..display import Readable
from ..engine import available
from ..model import ops
from ..model.arrays import Array
from ..model.cache import KVCache
from ..model.config import Config
from ..model.forward import forward
from ..model.operations import Operations
from ..model.params import Params
from ..model.taps import Tap, no_tap

if TYPE_CHECKING:
    from ..engine.decode_step import Prepared

AnyCache = Any  # made by `Implementation.new_cache`; only that implementation looks inside


class Computes(Protocol):
    """The interface of whatever computes logits, step by step, for a `Session` and a `Model`."""

    @property
    def dtype(self) -> np.dtype:
        """The dtype of activations and logits."""
        ...

    def new_cache(self, rows: int, capacity: int) -> AnyCache:
        """Return a cache for a number of rows and of positions, with the part of `KVCache`'s interface that `Session`
        uses.
        """
        ...

    def forward(
        self,
        ids: Array,
        *,
        cache: AnyCache = None,
        tap: Tap = no_tap,
        token_type_ids: Array | None = None,
        last_only: bool = False,
        prepared: Prepared | None = None,
    ) -> Array:
        """Run `model.forward.forward`: the logits after (B, T) ids, which continue the rows in the cache."""
        ...

    def prepare(self, cache: AnyCache, shape: tuple[int, int], before: Prepared | None) -> Prepared | None:
        """Return the `prepared` argument of `forward` for ids of this shape: `before` if it still fits."""
        ...

    def unembed(self, x: Array) -> Array:
        """Return the logits of residual streams as they are, without the final norm: (…, D) → (…, V)."""
        ...


class Implementation(Computes, Protocol):
    """The interface of an implementation that computes the numbers of a `Model`."""

    observable: bool  # whether every named activation can be watched and edited

    @property
    def batch_invariant(self) -> bool:
        """Whether a position's bits depend neither on the rest of the batch nor on how its text is cut into passes."""
        ...

    @property
    def backend(self) -> str:
        """Its name: "numba", "numpy", "torch"."""
        ...


class NumPy(Readable):
    """This package's own implementation: `model.forward` with `engine.kernels` or `engine.threaded`, or one compiled
    call per step.

    `backend` is "numba", "numpy", or None for "numba" where Numba is installed. A run with taps takes the readable path
    in any case.
    """

    observable = True

    def __init__(self, params: Params, config: Config, backend: str | None) -> None:
        self.params, self.config, self.backend = params, config, available.chosen(backend)

    @property
    def batch_invariant(self) -> bool:
        """Of the kernels' float32 sums; BLAS, which float64 and the readable path multiply by, goes by the shape."""
        return self.dtype == np.float32 and (self.step is not None or self.compiled)

    @property
    def dtype(self) -> np.dtype:
        """float32, or float64 for the oracle."""
        return self.params.ln_f.weight.dtype

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty `KVCache`."""
        return KVCache(self.config, rows, capacity, self.dtype)

    def forward(
        self,
        ids: Array,
        *,
        cache: KVCache | None = None,
        tap: Tap = no_tap,
        token_type_ids: Array | None = None,
        last_only: bool = False,
        prepared: Prepared | None = None,
    ) -> Array:
        """See `Implementation.forward`."""
        if tap is no_tap and self.step is not None:
            return self.step.forward(
                self.packed,
                self.config,
                ids,
                cache=cache,
                token_type_ids=token_type_ids,
                last_only=last_only,
                prepared=prepared,
            )
        operations, params = self.operations(tap)
        with np.errstate(over="ignore", invalid="ignore"):  # `Model.check_logits` reports an overflow
            return forward(
                params,
                self.config,
                ids,
                cache=cache,
                ops=operations,
                tap=tap,
                token_type_ids=token_type_ids,
                last_only=last_only,
            )

    def prepare(self, cache: KVCache, shape: tuple[int, int], before: Prepared | None) -> Prepared | None:
        """See `Implementation.prepare`."""
        if self.step is None:
            return None
        return self.step.renew(self.packed, self.config, cache, shape, before)

    def unembed(self, x: Array) -> Array:
        """See `Implementation.unembed`."""
        return ops.unembed(x, self.params.lm_head)

    def operations(self, tap: Tap) -> tuple[Operations, Params]:
        """Return the operations that a run uses, and the parameters as these read them."""
        if tap is not no_tap or not self.compiled:
            from ..engine import threaded

            return threaded, self.params
        from ..engine import kernels

        return kernels, self.packed

    @cached_property
    def compiled(self) -> bool:
        """Tell whether the kernels are used; Numba is loaded here."""
        return self.backend == "numba" and available.loads()

    @cached_property
    def step(self) -> Any:
        """Return `engine.decode_step` if it supports this model, else None."""
        if self.backend != "numba":
            return None
        with ThreadPoolExecutor(1) as aside:
            packing = aside.submit(lambda: self.packed)  # while the compiled code is loaded
            from ..engine import decode_step

            ready = decode_step.ready(self.params, self.config)
            packed = packing.result()
        return decode_step if ready and decode_step.supported(packed, self.config) else None

    @cached_property
    def packed(self) -> Params:
        """The parameters as the kernels read them; they are copied on first use, and never if all runs have taps."""
        from ..engine import layout

        return layout.packed(self.params)
