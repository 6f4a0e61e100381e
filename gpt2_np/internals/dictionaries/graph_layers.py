"""One layer as an attribution graph sees it: what its features read and write, and gradients taken back through it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...display import Readable
from ...model.params import Block, as_array
from . import places
from .coding import Coder

Array = np.ndarray


class Layer(Readable):
    """One layer as a graph sees it: linear, with what the prompt holds, and the features that fire."""

    def __init__(self, block: Block, transcoder: Coder, run: Mapping[str, Array], number: int, first: int) -> None:
        self.number, self.block = number, block
        prefix = f"blocks.{number}."
        self.scale1, self.scale2 = run[prefix + "ln1.scale"], run[prefix + "ln2.scale"]
        self.pattern = run[prefix + "attn.pattern"]
        reads = places.reads(transcoder)
        gained = reads.endswith("ln2.out")
        D = len(block.ln_2.weight)
        self.gain = block.ln_2.weight.astype(np.float64) if gained else np.ones(D)
        shift = block.ln_2.bias.astype(np.float64) if gained else np.zeros(D)
        t = {name: x.astype(np.float64) for name, x in transcoder.tensors.items()}
        x = run[reads]
        features = transcoder.encode(x)
        features[:first] = 0
        self.positions, self.features = np.nonzero(features)
        self.activations = features[self.positions, self.features]
        self.encoders = t["W_enc"][:, self.features].T
        self.pre = np.einsum("fd,fd->f", x[self.positions], self.encoders) + t["b_enc"][self.features]
        self.biases = t["b_enc"][self.features] + self.encoders @ shift
        self.writes = self.activations[:, None] * t["W_dec"][self.features]
        self.b_dec, self.skip = t["b_dec"], t.get("W_skip")
        self.skip_bias = np.zeros(D) if self.skip is None else self.skip @ shift
        self.error = run[prefix + "mlp_out"] - transcoder.written(features)
        if self.skip is not None:
            self.error -= x @ self.skip.T
        weight, bias = as_array(block.attn.c_attn.weight).astype(np.float64), block.attn.c_attn.bias
        self.values, self.output = weight[:, 2 * D :], as_array(block.attn.c_proj.weight).astype(np.float64)
        self.gain1 = block.ln_1.weight.astype(np.float64)
        # A pattern's weights add up to 1, so biases arrive as they are.
        given = block.ln_1.bias.astype(np.float64) @ self.values + bias[2 * D :]
        self.constant = given @ self.output + block.attn.c_proj.bias

    def arriving(self, flow: Array) -> Array:
        """What each of this layer's features adds by what it writes, given gradients at ``mlp_out``: (n, T, D) → (n,
        features).

        One product a position: gathered by feature, the gradients would fill the memory.
        """
        found = np.empty((len(flow), len(self.features)))
        for at in np.unique(self.positions):
            here = self.positions == at
            found[:, here] = flow[:, at] @ self.writes[here].T
        return found

    def reading(self, T: int) -> Array:
        """The gradient of each firing feature's pre-activation at ``resid_mid``: (features, T, D)."""
        flow = np.zeros((len(self.features), T, len(self.gain)))
        flow[np.arange(len(self.features)), self.positions] = self.encoders * self.gain
        return norm_back(flow, self.scale2)

    def through_skip(self, flow: Array) -> tuple[Array, Array]:
        """Past the MLP, and through the skip connection where there is one; and what its bias adds, (n,)."""
        if self.skip is None:
            return flow, np.zeros(len(flow))
        return flow + norm_back(flow @ self.skip * self.gain, self.scale2), flow.sum(axis=1) @ self.skip_bias

    def through_attention(self, flow: Array) -> Array:
        """Back through the heads, their patterns held: (n, T, D) at ``attn_out`` → at ``resid_pre``."""
        H = len(self.pattern)
        n, T, D = flow.shape
        of_z = (flow @ self.output.T).reshape(n, T, H, -1)
        of_v = np.einsum("hts,nthk->nshk", self.pattern, of_z, optimize=True)
        return norm_back(of_v.reshape(n, T, D) @ self.values.T * self.gain1, self.scale1)


def norm_back(flow: Array, scale: Array) -> Array:
    """Propagate a gradient through a norm whose scale is held constant: (n, T, D), (T, 1)."""
    return (flow - flow.mean(axis=-1, keepdims=True)) / scale
