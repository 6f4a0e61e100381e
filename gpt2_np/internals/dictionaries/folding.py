"""Rewriting a dictionary's weights: a factor of the activations is folded in, training checkpoints are made usable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .config import Config
from .dictionary import Dictionary

Array = np.ndarray


def folded(dictionary: Dictionary, factor: float) -> Dictionary:
    """Return the same dictionary for plain activations, if it was trained on activations times `factor`.

    As SAELens's ``fold_activation_norm_scaling_factor``: W_enc · factor, W_dec and b_dec / factor. Features keep the
    size that they had in training.
    """
    if dictionary.config.normalize_activations != "expected_average_only_in":
        return dictionary
    changed = dict(dictionary.tensors)
    changed["W_enc"] = changed["W_enc"] * np.float32(factor)
    for name in ("W_dec", "b_dec"):
        changed[name] = changed[name] / np.float32(factor)
    return Dictionary(replace(dictionary.config, normalize_activations="none"), changed)


def for_use(config: Config, tensors: Mapping[str, Array]) -> Dictionary:
    """Return the dictionary of a file's tensors, in the form that encodes.

    What training leaves behind becomes what SAELens's ``save_inference_model`` would write of it: the one threshold of
    batch-wise top-k is JumpReLU's, after the directions' lengths are folded into the encoder; a factor of fine-tuning
    that is 1 everywhere goes. ``ValueError`` for another one, which SAELens 6 can't use either.
    """
    found = dict(tensors)
    if "scaling_factor" in found and not np.allclose(found.pop("scaling_factor"), 1):
        raise ValueError("scaling_factor must be 1 everywhere: SAELens 6 has no use for fine-tuned scales")
    if "log_threshold" in found:
        found["threshold"] = np.exp(found.pop("log_threshold"))
    if "topk_threshold" in found and "W_dec" in found and "b_enc" in found and "W_enc" in found:
        if found["topk_threshold"].size != 1:
            raise ValueError(f"topk_threshold must be one number, got {found['topk_threshold'].shape}")
        found["threshold"] = np.full(config.d_sae, found.pop("topk_threshold").reshape(()), np.float32)
        if config.rescale_acts_by_decoder_norm:
            norms = np.linalg.norm(found["W_dec"], axis=-1)
            found["W_enc"], found["b_enc"] = found["W_enc"] * norms, found["b_enc"] * norms
            found["W_dec"] = found["W_dec"] / norms[:, None]
    if config.architecture in ("batchtopk", "matryoshka_batchtopk"):
        config = replace(config, architecture="jumprelu", rescale_acts_by_decoder_norm=False)
    return Dictionary(config, found)
