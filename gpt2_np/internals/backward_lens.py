"""The backward lens: what a gradient would write into an MLP, in words.

Katz et al. 2024, "Backward Lens: Projecting Language Model Gradients into the Vocabulary Space". The gradient of an
MLP's second matrix is a sum over positions of outer products, postᵀ·δ, where post are the neurons' activations and δ is
the gradient of what the MLP wrote; that of its first matrix is inputᵀ·(gradient of pre). So a step of gradient descent
makes the neurons that were active write −δ, and makes them listen to the input: both are vectors of the stream's width,
and are read as the logit lens reads streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..display import boxed, described, heat
from ..gradients.metrics import Metric
from ..model import ops
from ..session.model import Model
from .lens import Lens, lens_table

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class BackwardLens:
    """One prompt's gradient in words: ``written`` and ``heard`` are read as lenses are, a stream for each layer's MLP.

    ``written`` is −δ, what a step of descent adds to what the active neurons write; ``heard`` is the MLP's input, which
    the same neurons are turned to. ``strength`` (L, T) is ‖post‖·‖δ‖, the size of each position's part of the gradient
    of the second matrix; ``value`` is the metric.
    """

    written: Lens
    heard: Lens
    strength: Array
    value: float

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        layers = [f"layer {layer}" for layer in range(len(self.strength))]
        columns = self.written.texts(self.written.ids)
        size = heat(self.strength, rows=layers, columns=columns, title="Size of each position's part of the gradient")
        title = f"What a step against the metric, {self.value:.4g}, would write into each MLP"
        return boxed(size, lens_table(self.written, "What is written, read as the lens reads streams"), title=title)


def backward_lens(model: Model, ids: Sequence[int] | Array, metric: Metric) -> BackwardLens:
    """Compute what descending the metric, a loss, on one prompt (T,) would write into every MLP, and what would recall
    it.

    One run with gradients. Where a metric is to rise instead, what would be written is the opposite.
    """
    row = model.check_ids(ids)
    if len(row) != 1:
        raise ValueError(f"a lens looks at one prompt, got {len(row)} rows")
    L = model.config.n_layer
    run = model.run_with_gradients(row, metric, ["blocks.*.mlp_out", "blocks.*.ln2.out", "blocks.*.mlp.post"])
    of_written = np.stack([run.grads["mlp_out", layer][0] for layer in range(L)])
    inputs, active = (
        np.stack([run.cache[f"blocks.{layer}.{name}"][0] for layer in range(L)]) for name in ("ln2.out", "mlp.post")
    )
    labels = [f"{layer}_mlp" for layer in range(L)]

    def read(vectors: Array) -> Lens:
        normed = ops.layer_norm(vectors, *model.params.ln_f, model.config.layer_norm_epsilon)
        return Lens(row[0], labels, ops.unembed(normed, model.params.lm_head), model.texts)

    # A gradient may be far smaller than the norm's epsilon; its direction is what is read.
    lengths = np.linalg.norm(of_written, axis=-1, keepdims=True)
    directions = np.divide(-of_written, lengths, out=np.zeros_like(of_written), where=lengths > 0)
    width = of_written.dtype.type(np.sqrt(model.config.n_embd))
    strength = np.linalg.norm(active, axis=-1) * lengths[..., 0]
    return BackwardLens(read(directions * width), read(inputs), strength, float(run.value[0]))
