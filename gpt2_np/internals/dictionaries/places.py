"""The place of a dictionary in a model, and the activations there as the vectors that it reads."""

from __future__ import annotations

import numpy as np

from ...model.config import Config as ModelConfig
from ...model.taps import canonical, nearest, points, sizes
from .coding import Coder

Array = np.ndarray
HEADS = ("attn.q", "attn.k", "attn.v", "attn.z")
STREAM = ("embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "ln1.in", "ln2.in")
# What TransformerLens may do to a model's weights, and the activations that it changes thereby: none of the others.
REWRITTEN = {"fold_ln": ("ln1.out", "ln2.out", "ln_final.out"), "fold_value_biases": ("attn.v", "attn.z")}


def reads(dictionary: Coder) -> str:
    """Return the activation that it reads, by its own name: ``blocks.5.resid_pre``."""
    return canonical(dictionary.hook_name)


def writes(dictionary: Coder) -> str:
    """Return the activation that it predicts, by its own name."""
    return canonical(dictionary.hook_name_out)


def check(dictionary: Coder, model: ModelConfig) -> None:
    """Raise ``ValueError`` if a model has no place for a dictionary: no such activation, or one of another width.

    The same error is raised for a dictionary whose file asks for rewritten weights that change what it reads.
    """
    known, config = points(model), dictionary.config
    sides = [("reads", reads(dictionary), config.d_in)]
    if config.is_transcoder:
        sides.append(("writes", writes(dictionary), config.d_out))
    for verb, name, width in sides:
        if name not in known:
            raise ValueError(
                f"the dictionary {verb} {name!r}, which the model doesn't have; the nearest is {nearest(name, known)!r}"
            )
        has = [sizes(model)[letter] for letter in known[name].split()[2:] if letter in sizes(model)]
        if name.endswith(HEADS):
            if config.hook_head_index is not None and config.hook_head_index >= model.n_head:
                raise ValueError(f"hook_head_index must be below {model.n_head}, got {config.hook_head_index}")
            has = has[1:] if config.hook_head_index is not None else [has[0] * has[1]]
        if has != [width]:
            there = " × ".join(map(str, has)) or "another number of"
            raise ValueError(f"the dictionary {verb} {width} numbers at {name}, where the model has {there}")
    for step, changed in REWRITTEN.items():
        if config.needs().get(step) and reads(dictionary).endswith(changed):
            raise ValueError(f"the dictionary was trained with {step}, which changes {reads(dictionary)}")
    if config.is_transcoder and list(known).index(reads(dictionary)) >= list(known).index(writes(dictionary)):
        raise ValueError(f"a transcoder must write after what it reads, got {reads(dictionary)}, {writes(dictionary)}")


def vectors(dictionary: Coder, x: Array) -> Array:
    """Return an activation of the model, (B, T, …), as the dictionary reads it: (B, T, D).

    One head's part where it reads one head, heads side by side where it reads all. In a dictionary that was trained on
    centred writing weights (``center_writing_weights``), the stream without its mean, which is what that makes of it.
    """
    head = dictionary.config.hook_head_index
    if head is not None:
        x = x[:, :, head]
    elif x.ndim == 4:
        x = x.reshape(*x.shape[:2], -1)
    return x - x.mean(axis=-1, keepdims=True) if is_centred(dictionary) else x


def targets(dictionary: Coder, x: Array) -> Array:
    """Return what the dictionary is to predict, (B, T, O), given the activation at `writes`."""
    return x.reshape(*x.shape[:2], -1) if dictionary.config.is_transcoder else vectors(dictionary, x)


def gradient(dictionary: Coder, of_vectors: Array) -> Array:
    """Return the gradient of one head's or all heads' activations, given that of `vectors`."""
    if is_centred(dictionary):
        return of_vectors - of_vectors.mean(axis=-1, keepdims=True)
    return of_vectors


def picked(dictionary: Coder, x: Array) -> Array:
    """Return the part of an activation, or of its gradient, that the dictionary writes, as vectors: (B, T, O)."""
    head = dictionary.config.hook_head_index
    if head is not None and x.ndim == 4:
        return x[:, :, head]
    return x.reshape(*x.shape[:2], -1)


def put(dictionary: Coder, x: Array, new: Array) -> Array:
    """Return an activation with `new`, (B, T, O), in place of what the dictionary writes; x itself is unchanged."""
    head = dictionary.config.hook_head_index
    if head is not None and x.ndim == 4:
        changed = x.copy()
        changed[:, :, head] = new
        return changed
    return new.reshape(x.shape).astype(x.dtype, copy=False)


def is_centred(dictionary: Coder) -> bool:
    """Tell whether it was trained on a stream whose mean had been subtracted."""
    return bool(dictionary.config.needs().get("center_writing_weights")) and reads(dictionary).endswith(STREAM)
