"""The forward pass in one compiled call: `model.forward.forward` for runs without taps; `session` selects it.

It gives the same bits as `model.forward.forward` with `kernels`: a position's bits don't depend on how many come at
once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..display import Readable, described
from ..model.arrays import Weight
from ..model.cache import KVCache
from ..model.config import Config
from ..model.forward import attention_scale
from ..model.ops import GELU_NEW
from ..model.params import Block, Linear, Params, matrices
from ..system.memory import empty, in_one_piece
from ..weights.panels import Matrix, no_bias
from . import available
from .kernels.address_tables import WEIGHT_TYPES, address_table
from .kernels.forward_pass import forward as compiled_forward
from .kernels.threads import launch

Array = np.ndarray
POSITIONS_PER_PASS = 2048  # positions at a time, where there are several rows: they need about 100 MB


def supported(params: Params, config: Config) -> bool:
    """Tell whether `forward` can run this model: GPT-2's own activation, all layers alike, matrices in panels
    (`layout`).
    """
    weights = [*(linear.weight for p in params.h for linear in matrices(p)), params.lm_head]
    if precisions(params, config) is None or not all(isinstance(weight, Matrix) for weight in weights):
        return False
    layers = [arrays(p) for p in params.h]
    rows = [params.wte, params.wpe, *(array for layer in layers for array in layer), *parts(params.lm_head)]
    kinds = [[(array.shape, array.dtype) for array in layer] for layer in layers]
    return (
        all(array.flags.c_contiguous for array in rows)
        and all(kind == kinds[0] for kind in kinds)
        and params.wte.dtype == params.wpe.dtype == np.float32
    )


def precisions(params: Params, config: Config) -> tuple[str, str] | None:
    """Return the precisions of the blocks' and of the unembedding's matrices, packed or not, as ``dtype.char`` of their
    codes; None for a model that `forward` can't run.
    """
    if config.activation_function not in GELU_NEW or params.ln_f.weight.dtype != np.float32:
        return None
    weights = [*(linear.weight for p in params.h for linear in matrices(p)), params.lm_head]
    stored = [weight.codes if isinstance(weight, Matrix) else weight for weight in weights]
    *blocks, head = [array.dtype.char if isinstance(array, np.ndarray) else "" for array in stored]
    return (blocks[0], head) if len(set(blocks)) == 1 and {*blocks, head} <= WEIGHT_TYPES.keys() else None


def ready(params: Params, config: Config) -> bool:
    """Load or compile the forward pass for these parameters, packed or not; False if Numba, which that needs, can't be
    loaded.
    """
    kinds = precisions(params, config)
    if kinds is None:
        return False
    try:
        compiled_forward(*kinds)
    except ImportError:
        if available.loads():  # then something else is missing
            raise
        return False
    return True


def forward(
    params: Params,
    config: Config,
    ids: Array,
    *,
    cache: KVCache | None = None,
    token_type_ids: Array | None = None,
    last_only: bool = False,
    prepared: Prepared | None = None,
) -> Array:
    """Compute the logits after each of the T new positions, (B, T) ids → (B, T, V), or (B, 1, V) with `last_only`.

    It does what `model.forward.forward` does. A `prepared` that was made for other arguments is made again.
    """
    B, T = ids.shape
    logits = empty((B, 1 if last_only else T, config.vocab_size), np.float32)
    kinds = None if token_type_ids is None else np.ascontiguousarray(token_type_ids)
    ids = np.ascontiguousarray(ids)
    memory: KVCache | Passing = Passing(config, B, T) if cache is None else cache
    size = rows_together(T)
    for first in range(0, B, size):
        some = slice(first, min(B, first + size))
        mine = memory if size >= B else memory.some(some)
        ready = prepared if prepared is not None and prepared.fits(params, mine, ids[some].shape) else None
        if ready is None:
            ready = prepare(params, config, mine, *ids[some].shape)
        of_kinds = NO_TYPES if kinds is None else kinds[some]
        launch(ready.run, ids[some], of_kinds, mine.lengths, logits[some], config.layer_norm_epsilon, *ready.tables)
    return logits


def rows_together(T: int) -> int:
    """Return how many rows of T positions are run at once."""
    return max(1, POSITIONS_PER_PASS // T)


class Passing(Readable):
    """A stand-in for the cache in a run without one: all layers write their keys and values to the same memory."""

    def __init__(self, config: Config, rows: int, positions: int) -> None:
        rows = min(rows, rows_together(positions))
        shape = (rows, config.n_head, positions, config.head_width)
        self.k, self.v = ([empty(shape, np.float32)] * config.n_layer for _ in range(2))
        self.lengths = np.zeros(rows, np.int64)

    def some(self, rows: slice) -> Passing:
        """Return the same for some rows; the memory is reused."""
        other = object.__new__(Passing)
        count = rows.stop - rows.start
        other.k, other.v = ([array[:count] for array in arrays] for arrays in (self.k, self.v))
        other.lengths = np.zeros(count, np.int64)
        return other


class Prepared(NamedTuple):
    """The compiled function and its arguments, for these parameters, a cache with these keys, and ids of this shape.

    The tables hold addresses, so `arrays` keeps the arrays alive. It serves in this process only, and not for a copy of
    the cache.
    """

    params: Params
    k: Any
    shape: tuple[int, int]
    run: Any
    tables: tuple[Array, Array]
    arrays: Any

    def __repr__(self) -> str:
        return described(self)

    def fits(self, params: Params, cache: KVCache | Passing, shape: tuple[int, ...]) -> bool:
        """Tell whether it was made for these arguments."""
        return self.params is params and self.k is cache.k and self.shape == shape


def renew(
    params: Params, config: Config, cache: KVCache, shape: tuple[int, int], before: Prepared | None
) -> Prepared | None:
    """Return a `Prepared` for ids of this shape: the one from `before` if it still fits, else a new one.

    It is kept between decoding steps, because the weights displace all of Python's objects from the cache at every
    step, and every array that Python looks up then costs a cache miss.
    """
    if shape[0] > rows_together(shape[1]) or (before is not None and before.fits(params, cache, shape)):
        return before
    return prepare(params, config, cache, *shape)


def prepare(params: Params, config: Config, cache: KVCache | Passing, B: int, T: int) -> Prepared:
    """Build the compiled step and those of its arguments that stay the same from step to step."""
    kinds = precisions(params, config)
    assert kinds is not None, "supported() was asked before"
    layers = [(cache.k[layer], cache.v[layer], *arrays(p)) for layer, p in enumerate(params.h)]
    scales = np.array([attention_scale(config, layer) for layer in range(config.n_layer)], np.float32)
    x, positions = empty((B * T, config.n_embd), np.float32), np.empty(B * T, np.int64)
    working = room(B, B * T, config.n_embd, config.mlp_width, config.n_head)
    head = parts(params.lm_head)
    others = (params.wte, params.wpe, *params.ln_f, *head, no_bias(config.vocab_size), scales, x, positions, *working)
    run = compiled_forward(*kinds)
    return Prepared(params, cache.k, (B, T), run, (address_table(layers), address_table([others])), (layers, others))


def room(B: int, R: int, D: int, F: int, H: int) -> list[Array]:
    """Return a block's working memory for R positions of B rows."""
    return in_one_piece(((R, D), (R, 3 * D), (B, D), (R, H, D // H), (R, F)), np.float32)


def arrays(p: Block) -> tuple[Array, ...]:
    """Return a block's parameters as the kernels take them."""
    return (
        *p.ln_1,
        *affine(p.attn.c_attn),
        *affine(p.attn.c_proj),
        *p.ln_2,
        *affine(p.mlp.c_fc),
        *affine(p.mlp.c_proj),
    )


def affine(linear: Linear) -> tuple[Array, ...]:
    """Return an affine map as the kernels take it: codes, scales, bias."""
    return (*parts(linear.weight), linear.bias)


NO_TYPES = np.empty((0, 0), np.int64)


def parts(weight: Weight) -> tuple[Array, Array]:
    """Return a matrix in panels as the kernels take it: codes and scales."""
    assert isinstance(weight, Matrix)
    return weight.codes, weight.scales
