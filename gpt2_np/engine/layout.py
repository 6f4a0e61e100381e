"""Packing a model's matrices into the panels that the kernels read (`weights.panels`); this is done once.

Memory bandwidth is highest when each core reads one contiguous piece of memory. A panel is such a piece; a checkpoint's
rows are not.
"""

from __future__ import annotations

import numpy as np

from ..model.arrays import Array
from ..model.params import MLP, Attention, Block, Norm, Params, matrices, with_weights
from ..system.files import release_pages
from ..system.memory import in_one_piece
from ..system.threads import cores, on_threads
from ..weights.panels import NO_SCALES, TILE, Matrix, pack_panels, panel_shape

PIECE = 32  # panels that a thread packs at a time, without acquiring the GIL


def packed(params: Params) -> Params:
    """Return the same parameters with float32 matrices packed into panels. The values are equal.

    Matrices of other dtypes (float64, reduced precision) stay as they are. The packed matrices' mapped file memory is
    released; of ``wte`` only the rows that are looked up are read again.
    """
    packed = params._replace(h=tuple(_block(block) for block in params.h))
    head = params.lm_head
    if isinstance(head, np.ndarray) and head.dtype == np.float32:
        packed = packed._replace(lm_head=_packed([head.T])[0])
        release_pages(head)
    for block, other in zip(params.h, packed.h, strict=True):
        if other is not block:
            for part in matrices(block):  # again: reading a neighbouring tensor brought large pages back
                if isinstance(part.weight, np.ndarray):
                    release_pages(part.weight)
    return packed


def _block(block: Block) -> Block:
    parts = matrices(block)
    weights = [part.weight for part in parts if isinstance(part.weight, np.ndarray)]
    if len(weights) < len(parts) or any(weight.dtype != np.float32 for weight in weights):
        return block
    packed = with_weights(block, _packed(weights))
    for weight in weights:
        release_pages(weight)
    c_attn, attn_proj, c_fc, mlp_proj = (part._replace(bias=_kept(part.bias)) for part in matrices(packed))
    return Block(
        Norm(*map(_kept, block.ln_1)),
        Attention(c_attn, attn_proj),
        Norm(*map(_kept, block.ln_2)),
        MLP(c_fc, mlp_proj, block.mlp.act),
    )


def _kept(vector: Array) -> Array:
    """Copy a vector: reading it from the mapped file would bring back the large page that it shares with a matrix."""
    copy = vector.copy()
    copy.flags.writeable = False
    return copy


def _packed(weights: list[Array]) -> list[Matrix]:
    """Pack matrices into panels in one allocation, in large pages where the system grants them."""
    shapes = [(weight.shape[0], weight.shape[1]) for weight in weights]
    places = in_one_piece([panel_shape(*shape) for shape in shapes], np.float32)
    tasks = [
        (weight, place, slice(first, min(len(place), first + PIECE)))
        for weight, place in zip(weights, places, strict=True)
        for first in range(0, len(place), PIECE)
    ]

    def pack(task: tuple[Array, Array, slice]) -> None:
        weight, place, some = task
        pack_panels(weight, place, some)
        if weight.T.flags.c_contiguous:  # a vocabulary: its panels are rows of the file, and not needed any more
            release_pages(weight.T[some.start * TILE : some.stop * TILE])

    on_threads(pack, tasks, cores())
    for place in places:
        place.flags.writeable = False
    return [Matrix(place, NO_SCALES, shape) for place, shape in zip(places, shapes, strict=True)]
