"""The tap of a circuit's run: every receiver reads some senders from this run, and the others from another run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...display import Readable
from ...model import ops
from ...model.config import Config
from ...model.forward import head_results
from ...model.params import Params, as_array
from ...session.model import Model
from . import graph

Array = np.ndarray
SENT = ["embed", "blocks.*.attn.z", "blocks.*.mlp_out"]


class Only(Readable):
    """A tap that lets the model run with only some edges: `edges` (S, R); along all others `other` is read.

    `other` is (S, b, T, D), or broadcasts to it. A receiver's input is the stream plus, for each sender that it has no
    edge from, the difference between what the other run's sender wrote and what this run's wrote: if no edge is
    missing, the bits are the model's. Heads and MLPs that no edge leaves are left as they are: nothing reads them.
    """

    def __init__(self, edges: Array, params: Params, config: Config, other: Array) -> None:
        self.params, self.config, self.other = params, config, other
        self.missing = (graph.there(config) & ~edges).astype(other.dtype)
        self.living = graph.alive(edges)
        self.change: list[Array] = []  # what every sender so far wrote in the other run, less what it wrote here
        self.stream: Array | None = None

    def wants(self, name: str) -> bool:
        part = name.split(".", 2)[-1]
        return name in ("embed", "ln_final.in") or part in (
            *("resid_pre", "attn.q", "attn.k", "attn.v", "attn.z", "ln2.in", "mlp_out"),
        )

    def __call__(self, name: str, x: Array) -> Array:
        if name == "embed":
            self.change = []
            self._wrote(x[None])
        elif name == "ln_final.in":
            return self._stream(x, -1, len(self.change))
        elif name.startswith("blocks."):
            layer, point = int(name.split(".")[1]), name.split(".", 2)[2]
            if point == "resid_pre":
                self.stream = x
            elif point in ("attn.q", "attn.k", "attn.v"):
                return self._heads(x, layer, "qkv".index(point[-1]))
            elif point == "attn.z":
                self._wrote(head_results(x, self.params.h[layer].attn.c_proj).transpose(2, 0, 1, 3))
            elif point == "ln2.in" and self.living[graph.before_mlp(self.config, layer)]:
                return self._stream(x, graph.of_mlp(self.config, layer), graph.before_mlp(self.config, layer))
            elif point == "mlp_out":
                self._wrote(x[None])
        return x

    def _wrote(self, results: Array) -> None:
        """Senders' results, (senders, b, T, D), in their order."""
        start = len(self.change)
        self.change += list(self.other[start : start + len(results)] - results)

    def _missed(self, columns: Array | list[int], until: int) -> Array:
        """Return the difference between what some receivers read and the stream: (receivers, b, T, D)."""
        weights = self.missing[:until, columns]
        some = np.flatnonzero(weights.any(axis=1))
        change = np.stack([self.change[s] for s in some])
        return np.tensordot(weights[some].T, change, axes=1)

    def _stream(self, x: Array, receiver: int, until: int) -> Array:
        return x + self._missed([receiver], until)[0] if self.missing[:until, receiver].any() else x

    def _heads(self, x: Array, layer: int, part: int) -> Array:
        """Return the queries, keys or values of a layer, (b, T, H, K), for heads that each read their own stream."""
        config, p = self.config, self.params.h[layer]
        H, K, until = config.n_head, config.head_width, graph.before_attention(config, layer)
        columns = graph.of_attention(config, layer).start + part * H + np.arange(H)
        heads = np.flatnonzero(self.missing[:until, columns].any(axis=0) & self.living[until : until + H])
        if not len(heads) or self.stream is None:
            return x
        read = self.stream + self._missed(columns[heads], until)
        normalized = ops.layer_norm(read, *p.ln_1, config.layer_norm_epsilon)
        places = (part * H + heads)[:, None] * K + np.arange(K)
        weight = as_array(p.attn.c_attn.weight)[:, places].transpose(1, 0, 2)
        made = normalized.reshape(len(heads), -1, config.n_embd) @ weight + p.attn.c_attn.bias[places][:, None]
        x = np.array(x)
        x[:, :, heads] = made.reshape(len(heads), *x.shape[:2], K).transpose(1, 2, 0, 3)
        return x


def written(model: Model, rows: Sequence[Array] | Array, ablation: str) -> Array:
    """Return what every sender writes in the runs of some rows of ids, as (S, b, T, D).

    With "mean" it is the mean over all their positions, (S, 1, 1, D); with "zero" it is zeros.
    """
    config = model.config
    count = graph.before_attention(config, config.n_layer)
    if ablation == "zero":
        return np.zeros((count, 1, 1, config.n_embd), model.dtype)
    if ablation == "mean":
        total = np.zeros((count, config.n_embd))
        for row in rows:
            total += written(model, row[None], "corrupted").sum(axis=(1, 2), dtype=np.float64)
        return (total / sum(len(row) for row in rows)).astype(model.dtype)[:, None, None]
    _, cache = model.run_with_cache(np.asarray(rows), SENT)
    parts = [cache["embed"][None]]
    for layer in range(config.n_layer):
        parts += [head_results(cache["z", layer], model.params.h[layer].attn.c_proj).transpose(2, 0, 1, 3)]
        parts += [cache["mlp_out", layer][None]]
    return np.concatenate(parts)
