"""How the kernels read a model's matrices: outputs down, each output's weights in one piece of memory.

A checkpoint has them the other way round, (inputs, outputs) row behind row. Memory is read fastest where each core sees
one piece of it go by and does little else: a sum of products stays in a register, while sums that are stored as they
grow keep the processor from running ahead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads

from .files import let_go
from .pages import empty
from .params import MLP, Attention, Block, Linear, Norm, Params
from .pool import on_threads

Array = np.ndarray
ROWS = 128  # outputs that a thread copies at a time


def outputs_down(params: Params) -> Params:
    """The same parameters, float32 matrices of the blocks being copied where they lie the other way; equal in value.

    Others (float64, reduced precision) stay as they are, and so does what lies so already. The process no longer holds
    on to the mapped memory of what was copied, and doesn't read it again.
    """
    down = params._replace(h=tuple(_block(block) for block in params.h))
    for block, other in zip(params.h, down.h, strict=True):
        if other is not block:
            for weight in _weights(block):  # once more: large pages came back when a neighbour was read
                let_go(weight)
    return down


def lies_down(weight: Array) -> bool:
    """Whether each output of an (inputs, outputs) matrix lies in one piece."""
    return weight.T.flags.c_contiguous


def _block(block: Block) -> Block:
    weights = _weights(block)
    if not all(isinstance(weight, np.ndarray) and weight.dtype == np.float32 for weight in weights):
        return block
    if all(lies_down(weight) for weight in weights):
        return block
    c_attn, attn_proj, c_fc, mlp_proj = _turned(weights)
    for weight in weights:
        let_go(weight)
    attn, mlp = block.attn, block.mlp
    return Block(
        Norm(*map(_kept, block.ln_1)),
        Attention(Linear(c_attn, _kept(attn.c_attn.bias)), Linear(attn_proj, _kept(attn.c_proj.bias))),
        Norm(*map(_kept, block.ln_2)),
        MLP(Linear(c_fc, _kept(mlp.c_fc.bias)), Linear(mlp_proj, _kept(mlp.c_proj.bias)), mlp.act),
    )


def _kept(vector: Array) -> Array:
    """A copy: to read a vector in a mapped file brings back the large page that it shares with a matrix."""
    copy = vector.copy()
    copy.flags.writeable = False
    return copy


def _weights(block: Block) -> list[Any]:
    return [part.weight for part in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)]


def _turned(weights: list[Array]) -> list[Array]:
    """Copies in one piece of memory, in large pages where the system grants them."""
    ends = np.cumsum([weight.size for weight in weights]).tolist()
    whole = empty((ends[-1],), np.float32)
    turned = [whole[end - weight.size : end].reshape(weight.shape[::-1])
              for weight, end in zip(weights, ends, strict=True)]  # fmt: skip
    pieces = [(down[first : first + ROWS], weight[:, first : first + ROWS].T)
              for down, weight in zip(turned, weights, strict=True) for first in range(0, len(down), ROWS)]  # fmt: skip
    on_threads(lambda piece: np.copyto(*piece), pieces, get_num_threads())
    for down in turned:
        down.flags.writeable = False
    return [down.T for down in turned]
