"""How the kernels read a model's matrices: outputs down, each output's weights in one piece of memory.

A checkpoint has them the other way round, (inputs, outputs) row behind row. Memory is read fastest where each core sees
one piece of it go by and does little else: a sum of products stays in a register, while sums that are stored as they
grow keep the processor from running ahead.
"""

from __future__ import annotations

import numpy as np

from ..model.arrays import Array
from ..model.params import MLP, Attention, Block, Norm, Params, as_array, matrices, with_weights
from ..system.files import release_pages
from ..system.memory import in_one_piece
from ..system.threads import on_threads
from .kernels.threads import threads

ROWS = 128  # outputs that a thread copies at a time


def outputs_down(params: Params) -> Params:
    """The same parameters, float32 matrices of the blocks being copied where they lie the other way; equal in value.

    Others (float64, reduced precision) stay as they are, and so does what lies so already. The process no longer holds
    on to the mapped memory of what was copied, and doesn't read it again.
    """
    down = params._replace(h=tuple(_block(block) for block in params.h))
    for block, other in zip(params.h, down.h, strict=True):
        if other is not block:
            for part in matrices(block):  # once more: large pages came back when a neighbour was read
                release_pages(as_array(part.weight))
    return down


def lies_down(weight: Array) -> bool:
    """Whether each output of an (inputs, outputs) matrix lies in one piece."""
    return weight.T.flags.c_contiguous


def _block(block: Block) -> Block:
    parts = matrices(block)
    weights = [part.weight for part in parts if isinstance(part.weight, np.ndarray)]
    if len(weights) < len(parts) or any(weight.dtype != np.float32 for weight in weights):
        return block
    if all(lies_down(weight) for weight in weights):
        return block
    down = with_weights(block, _turned(weights))
    for weight in weights:
        release_pages(weight)
    c_attn, attn_proj, c_fc, mlp_proj = (part._replace(bias=_kept(part.bias)) for part in matrices(down))
    return Block(
        Norm(*map(_kept, block.ln_1)),
        Attention(c_attn, attn_proj),
        Norm(*map(_kept, block.ln_2)),
        MLP(c_fc, mlp_proj, block.mlp.act),
    )


def _kept(vector: Array) -> Array:
    """A copy: to read a vector in a mapped file brings back the large page that it shares with a matrix."""
    copy = vector.copy()
    copy.flags.writeable = False
    return copy


def _turned(weights: list[Array]) -> list[Array]:
    """Copies in one piece of memory, in large pages where the system grants them."""
    turned = in_one_piece([weight.shape[::-1] for weight in weights], np.float32)
    pieces = [
        (down[first : first + ROWS], weight[:, first : first + ROWS].T)
        for down, weight in zip(turned, weights, strict=True)
        for first in range(0, len(down), ROWS)
    ]
    on_threads(lambda piece: np.copyto(*piece), pieces, threads())
    for down in turned:
        down.flags.writeable = False
    return [down.T for down in turned]
