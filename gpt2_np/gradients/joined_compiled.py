"""`joined` with compiled activation and softmax: the forward pass that belongs to `compiled`."""

from __future__ import annotations

import numpy as np

from ..engine.kernels import activate as activate
from ..engine.kernels import softmax as softmax
from . import joined
from .joined import attention_scores as attention_scores
from .joined import centred as centred
from .joined import layer_norm as layer_norm
from .joined import layer_norm_scale as layer_norm_scale
from .joined import linear as linear
from .joined import mix_values as mix_values
from .joined import scaled_and_shifted as scaled_and_shifted
from .joined import split_heads as split_heads
from .joined import unembed as unembed

Array = np.ndarray


def attention(q: Array, k: Array, v: Array, lengths: Array, scale: float) -> Array:
    """Compute `joined.attention` with this module's softmax."""
    S = int(lengths.max()) + q.shape[1]
    return joined.mix_values(softmax(attention_scores(q, k[:, :, :S], lengths, scale)), v[:, :, :S])
