"""Equivalent parameters in other coordinates: layer norms folded, weights centred, so that they are easier to read.

Each function returns new parameters and leaves the old ones alone; none changes what the model predicts. They are
TransformerLens's weight processing, one step a function. A tied ``lm_head`` is no longer tied afterwards.
"""

from __future__ import annotations

import numpy as np

from ..model.params import MLP, Attention, Block, Linear, Norm, Params, as_array, unembedding

Array = np.ndarray


def fold_ln(params: Params) -> Params:
    """Move every layer norm's gain and bias into the matrices that read it, and centre their columns.

    A norm's output has mean 0, so the mean of a reading column never matters and is taken out. Logits are the same.
    The final norm's bias has no bias to move into (GPT-2's ``lm_head`` has none): it stays, in folded coordinates,
    and so does a final gain of exactly 0.
    """

    def fold(linear: Linear, norm: Norm) -> Linear:
        given = as_array(linear.weight)
        weight = given * norm.weight[:, None]
        return Linear(weight - weight.mean(axis=0), linear.bias + norm.bias @ given)

    def plain(norm: Norm) -> Norm:
        return Norm(np.ones_like(norm.weight), np.zeros_like(norm.bias))

    blocks = tuple(
        Block(
            plain(block.ln_1),
            block.attn._replace(c_attn=fold(block.attn.c_attn, block.ln_1)),
            plain(block.ln_2),
            block.mlp._replace(c_fc=fold(block.mlp.c_fc, block.ln_2)),
        )
        for block in _plain_arrays(params).h
    )
    off = params.ln_f.weight == 0
    gain = np.where(off, np.ones_like(params.ln_f.weight), params.ln_f.weight)
    ln_f = Norm(np.where(off, params.ln_f.weight, np.ones_like(gain)), params.ln_f.bias / gain)
    return params._replace(h=blocks, ln_f=ln_f, lm_head=unembedding(params) * gain)


def center_writing_weights(params: Params) -> Params:
    """Centre all weights that write into the residual stream, so that they write vectors of mean 0.

    Every reader takes the mean out anyway, so logits are the same.
    """

    def center(linear: Linear) -> Linear:
        return Linear(_centred(as_array(linear.weight)), _centred(linear.bias))

    blocks = tuple(
        block._replace(
            attn=Attention(block.attn.c_attn, center(block.attn.c_proj)),
            mlp=MLP(block.mlp.c_fc, center(block.mlp.c_proj), block.mlp.act),
        )
        for block in _plain_arrays(params).h
    )
    return params._replace(wte=_centred(params.wte), wpe=_centred(params.wpe), h=blocks)


def center_unembed(params: Params) -> Params:
    """Centre the unembedding: each direction's scores over the vocabulary get the mean 0.

    Each position's logits move by one number, so probabilities are the same.
    """
    lm_head = unembedding(_plain_arrays(params))
    return params._replace(lm_head=lm_head - lm_head.mean(axis=0))


def fold_value_biases(params: Params) -> Params:
    """Move the biases of the values past attention: its weights add up to 1, so the biases arrive unchanged.

    Logits are the same.
    """

    def fold(attn: Attention) -> Attention:
        D = attn.c_proj.weight.shape[0]
        bias = attn.c_attn.bias.copy()
        bias[2 * D :] = 0
        moved = attn.c_proj.bias + attn.c_attn.bias[2 * D :] @ attn.c_proj.weight
        return Attention(attn.c_attn._replace(bias=bias), attn.c_proj._replace(bias=moved))

    return params._replace(h=tuple(block._replace(attn=fold(block.attn)) for block in _plain_arrays(params).h))


def process_weights(params: Params) -> Params:
    """Apply all four steps, in TransformerLens's order: most published work reads GPT-2 in these coordinates."""
    return fold_value_biases(center_unembed(center_writing_weights(fold_ln(params))))


def _centred(array: Array) -> Array:
    return array - array.mean(axis=-1, keepdims=True)


def _plain_arrays(params: Params) -> Params:
    if not isinstance(params.lm_head, np.ndarray):
        raise ValueError("weights can be rewritten in float32 or float64 only; load the model without a reduced dtype")
    return params
