"""Attribution by input: the effect of each token of a prompt on a metric.

Saliency: Simonyan et al. 2014, "Deep Inside Convolutional Networks"; input × gradient: Denil et al. 2015, "Extraction
of Salient Sentences"; integrated gradients: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks";
occlusion: Zeiler & Fergus 2014; contrastive explanations (any of them with `logit_difference`): Yin & Neubig 2022,
"Interpreting Language Models with Contrastive Explanations"; attention roll-out: Abnar & Zuidema 2020, "Quantifying
Attention Flow in Transformers".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...display import NUMBERS, Texts, described
from ...session.model import Model
from .pairs import Prompt, ids_of, is_several, measure, of_rows, values
from .tables import input_words

Array = np.ndarray
METHODS = ("saliency", "input_x_gradient", "integrated_gradients", "occlusion", "attention_rollout")
TOKENS_PER_RUN = 512  # tokens in one run


@dataclass(frozen=True, eq=False, repr=False)
class Inputs:
    """The effect of each token: `scores`, (T,), of the prompt's `ids`, (T,).

    `value` is the metric of the prompt, `baseline` that without any token's embedding where the method looks at it
    (integrated gradients), else NaN.
    """

    scores: Array
    ids: Array
    method: str
    value: float
    baseline: float = float("nan")
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    @property
    def error(self) -> float:
        """The gap between the sum of integrated gradients and the metric's difference to the baseline; more steps
        shrink it.
        """
        return float(self.value - self.baseline - self.scores.sum())

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return input_words(self)


def inputs(
    model: Model,
    ids: Prompt,
    metric: Any,
    method: str = "saliency",
    steps: int = 50,
    *,
    prepend_bos: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Inputs:
    """Score every token of a prompt, a text or ids, by what its embedding does for a metric.

    "saliency": the length of the gradient at the token's embedding, ‖∂m/∂e‖₂; it has no sign. "input_x_gradient":
    Σ e·∂m/∂e over D. "integrated_gradients": Σ e·(the mean of ∂m/∂e on the straight way from all embeddings 0 to
    these), at `steps` Gauss–Legendre points; the scores add up to the metric's difference between the two ends.
    "occlusion": the metric less what it is with the token's embedding 0. "attention_rollout": how much of the position
    that the metric looks at comes from the token, by the mean of all heads' patterns alone; what is asked of the logits
    there plays no part. e is the row of ``wte``; position embeddings stay as they are. `metric` with a second token
    (`logit_difference`) asks why the one and not the other. `progress` is told the number of runs.

    ``ValueError``, before anything runs, for another method, several prompts, or a metric without a derivative.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import log_probability
        >>> from gpt2_np.internals import attribution
        >>> attribution.inputs(model, "The king and the", log_probability(" queen")).scores.shape
        (4,)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
    if is_several(ids):
        raise ValueError("inputs are those of one prompt: a text, or one row of ids")
    metric, row = measure(metric, model), ids_of(model, ids, prepend_bos=prepend_bos)
    tell = progress or (lambda runs: None)
    if method == "attention_rollout":
        return rollout(model, row, metric)
    embedding = model.params.wte[row].astype(model.dtype, copy=False)
    if method in ("saliency", "input_x_gradient"):
        run = model.run_with_gradients(row, metric, "embed")
        gradient = run.grads["embed"][0].astype(np.float64)
        tell(1)
        scores = np.sqrt((gradient**2).sum(axis=-1)) if method == "saliency" else (embedding * gradient).sum(axis=-1)
        return Inputs(scores, row, method, float(run.value[0]), texts=model.texts)
    (value,) = _measured(model, row, metric, embedding[None])
    if method == "occlusion":
        there = 1 - np.eye(len(row), dtype=embedding.dtype)
        without = [
            _measured(model, row, metric, some[:, :, None] * embedding) for some in _split(there, len(row), tell)
        ]
        return Inputs(value - np.concatenate(without), row, method, value, texts=model.texts)
    shares, weights = np.polynomial.legendre.leggauss(steps)
    total = np.zeros(embedding.shape)
    for some, weight in zip(_split((shares + 1) / 2, len(row), tell), _split(weights / 2, len(row)), strict=True):
        between = some.astype(embedding.dtype)[:, None, None] * embedding
        run = model.with_edits({"embed": between}).run_with_gradients(
            np.repeat(row[None], len(some), 0), of_rows(metric, np.zeros(len(some), int), 1), "embed"
        )
        total += np.tensordot(weight, run.grads["embed"].astype(np.float64), axes=1)
    (nothing,) = _measured(model, row, metric, np.zeros_like(embedding)[None])
    return Inputs((embedding * total).sum(axis=-1), row, method, value, float(nothing), model.texts)


def _measured(model: Model, row: Array, metric: Any, embeddings: Array) -> Array:
    """Return the metric of the prompt with other embeddings: (n, T, D) → (n,)."""
    ids = np.repeat(row[None], len(embeddings), 0)
    logits, _ = model.run_with_edits(ids, {"embed": embeddings})
    return values(of_rows(metric, np.zeros(len(ids), int), 1), logits, ids)


def _split(x: Array, T: int, tell: Callable[[int], Any] = lambda runs: None) -> list[Array]:
    """Divide rows into batches that have as many tokens as a run may have."""
    size = max(1, TOKENS_PER_RUN // T)
    tell(len(x))
    return [x[start : start + size] for start in range(0, len(x), size)]


def rollout(model: Model, ids: Array, metric: Any) -> Inputs:
    """Attention roll-out: Π over layers of ½·(the heads' mean pattern) + ½·I, the row of the metric's position.

    Of a metric without a ``position``, the last one's. Scores add up to 1.
    """
    logits, cache = model.run_with_cache(ids[None], "blocks.*.attn.pattern")
    flow = np.eye(len(ids))
    for layer in range(model.config.n_layer):
        pattern = cache["pattern", layer][0].mean(axis=0, dtype=np.float64)
        flow = (0.5 * pattern + 0.5 * np.eye(len(ids))) @ flow
    position = int(np.ravel(getattr(metric, "position", -1))[0])
    value = float(values(metric, logits, ids[None])[0])
    return Inputs(flow[position], ids, "attention_rollout", value, texts=model.texts)
