"""How the kernels read a model's matrices: outputs down, each output's weights in one piece of memory.

A checkpoint has them the other way round, (inputs, outputs) row behind row. Memory is read fastest where each core sees
one piece of it go by and does little else: a sum of products stays in a register, while sums that are stored as they
grow keep the processor from running ahead.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads

from .files import let_go
from .pages import empty
from .params import MLP, Attention, Block, Linear, Params
from .pool import on_threads

Array = np.ndarray
ROWS = 128  # outputs that a thread copies at a time


def outputs_down(params: Params) -> Params:
    """The same parameters, float32 matrices of the blocks being copied where they lie the other way; equal in value.

    Others (float64, reduced precision) stay as they are, and so does what lies so already. The process no longer holds
    on to the mapped memory of what was copied.
    """
    return params._replace(h=tuple(_block(block) for block in params.h))


def lies_down(weight: Array) -> bool:
    """Whether each output of an (inputs, outputs) matrix lies in one piece."""
    return weight.T.flags.c_contiguous


def _block(block: Block) -> Block:
    parts = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    weights = [part.weight for part in parts]
    if not all(isinstance(weight, np.ndarray) and weight.dtype == np.float32 for weight in weights):
        return block
    if all(lies_down(weight) for weight in weights):
        return block
    c_attn, attn_proj, c_fc, mlp_proj = (
        Linear(weight, part.bias) for weight, part in zip(_turned(weights), parts, strict=True)
    )
    for weight in weights:
        let_go(weight)
    return block._replace(attn=Attention(c_attn, attn_proj), mlp=MLP(c_fc, mlp_proj, block.mlp.act))


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
