"""The effects of features: on the logits directly, and on any metric by its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...display import NUMBERS, Cell, Texts, boxed, described, number, table, visible
from ...gradients.metrics import Metric
from ...model.params import as_array, unembedding
from ...session.model import Model
from . import places, resumed
from .coding import Coder

Array = np.ndarray
WRITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "embed", "pos_embed")


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """The effect of each feature on a metric at each token of one prompt: its activation times the metric's gradient.

    ``scores`` (T, F); ``error`` (T,), the same of what the dictionary misses; ``bias`` (T,), of ``b_dec``. Together
    they are activation × gradient of the whole activation. ``value`` is the metric.
    """

    ids: Array
    scores: Array
    error: Array
    bias: Array
    value: float
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        best, pieces = self.top(12), self.texts(self.ids)
        most = max((abs(score) for *_, score in best), default=1.0)
        rows = [(f"{at} {visible(pieces[at])}", int(one), Cell(number(s), s / most)) for at, one, s in best]
        note = f"Error terms add {number(float(self.error.sum()))} together, biases {number(float(self.bias.sum()))}."
        title = f"What features did for the metric, {self.value:.4g}: the {len(best)} largest"
        return boxed(table(rows, head=["token", "feature", "score"]), title=title, note=note)

    def top(self, count: int = 20) -> list[tuple[int, int, float]]:
        """Return the (position, feature, score) of the largest scores in size, the largest first."""
        order = np.argsort(-np.abs(self.scores), axis=None, kind="stable")[:count]
        positions, features = np.unravel_index(order, self.scores.shape)
        values = self.scores[positions, features]
        rows = zip(positions.tolist(), features.tolist(), values.tolist(), strict=True)
        return [(position, feature, value) for position, feature, value in rows if value]


def attribute(
    model: Model, dictionary: Coder, ids: str | Sequence[int] | Array, metric: Metric, *, prepend_bos: bool = False
) -> Attribution:
    """Return the effect of each feature on a metric, to first order: f · ∂metric/∂f, with the error term held constant.

    Marks et al. 2024, "Sparse Feature Circuits", eq. 3, against a baseline of 0. It is the effect that silencing a
    feature would have if everything after it were linear. ``ValueError`` for more than one prompt, and where the model
    has no place for the dictionary.
    """
    places.check(dictionary, model.config)
    row = model.check_ids(model.to_ids(ids, prepend_bos=prepend_bos))
    if len(row) != 1:
        raise ValueError(f"features are attributed in one prompt, got {len(row)} rows")
    reads, writes = places.reads(dictionary), places.writes(dictionary)
    run = model.run_with_gradients(row, metric, sorted({reads, writes}))
    vectors = places.vectors(dictionary, run.cache[reads])
    features, out = dictionary.both(vectors)
    of_out = places.picked(dictionary, run.grads[writes])
    scale = dictionary.scale(vectors)
    scores = features * dictionary.of_features(scale.gradient(of_out))
    target = places.picked(dictionary, run.cache[writes])
    missed = target - out.reshape(target.shape)
    bias = scale.back(np.broadcast_to(dictionary.tensors["b_dec"], target.shape))
    if dictionary.config.has_skip:
        bias = bias + dictionary.flat(vectors) @ dictionary.tensors["W_skip"].T
    of_error, of_bias = ((part * of_out).sum(axis=-1)[0] for part in (missed, bias))
    return Attribution(row[0], scores[0], of_error, of_bias, float(run.value[0]), model.texts)


def stream_directions(model: Model, dictionary: Coder, features: Sequence[int] | Array) -> Array:
    """Return what one unit of each feature adds to the residual stream at its token, (n, D).

    ``ValueError`` for a dictionary of an activation that isn't added to the stream, nor leads there by one matrix (the
    values that heads gather, MLP neurons). The scale of a dictionary that normalises its input is left out.
    """
    name, rows = places.writes(dictionary), dictionary.directions(features)
    if name.endswith(WRITES):
        return rows
    block = model.params.h[int(name.split(".")[1])] if name.startswith("blocks.") else None
    if block is not None and name.endswith("attn.z"):
        weight = as_array(block.attn.c_proj.weight)
        head = dictionary.config.hook_head_index
        width = model.config.head_width
        return rows @ (weight if head is None else weight[head * width : (head + 1) * width])
    if block is not None and name.endswith("mlp.post"):
        return rows @ as_array(block.mlp.c_proj.weight)
    raise ValueError(f"features of {name} have no direct effect on the logits: nothing adds them to the stream")


def logit_effects(model: Model, dictionary: Coder, features: Sequence[int] | Array) -> Array:
    """Return how one unit of each feature moves every logit directly, (n, V), up to the final norm's scale.

    The direction is centred and multiplied by the final norm's gain, as the norm does, and unembedded.
    """
    directions = stream_directions(model, dictionary, features)
    seen = (directions - directions.mean(axis=-1, keepdims=True)) * model.params.ln_f.weight
    return seen @ unembedding(model.params).T


@dataclass(frozen=True, eq=False, repr=False)
class DirectFeatures:
    """A logit, or a difference of two, at one position, as a sum: ``features`` (F,), and ``rest``, everything else.

    The effect of a feature through later layers is part of ``rest``.
    """

    features: Array
    rest: float
    logit: float

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        order = np.argsort(-np.abs(self.features), kind="stable")[:12]
        most = float(np.abs(self.features).max(initial=0)) or 1.0
        values = [(f"feature {one}", float(self.features[one])) for one in order if self.features[one]]
        rows = [(name, Cell(number(value), value / most)) for name, value in values]
        rows.append(("all that is no feature", Cell(number(self.rest))))
        return boxed(table(rows), title=f"What features add to the logit {self.logit:.4g} directly: the largest")


def direct(
    model: Model,
    dictionary: Coder,
    ids: str | Sequence[int] | Array,
    token: int,
    versus: int | None = None,
    *,
    position: int = -1,
    prepend_bos: bool = False,
) -> DirectFeatures:
    """Return what each feature at a position adds to the logit of `token` (less that of `versus`) there.

    The final norm's scale is the run's own. ``ValueError`` for a position outside the prompt, and as in
    `stream_directions`.
    """
    places.check(dictionary, model.config)
    row = model.check_ids(model.to_ids(ids, prepend_bos=prepend_bos))
    T = row.shape[1]
    if len(row) != 1 or not -T <= position < T:
        raise ValueError(f"position must be between {-T} and {T - 1} of one prompt, got {position}, {len(row)} rows")
    reads = places.reads(dictionary)
    logits, found = resumed.run(model, row, [reads, "ln_final.scale"])
    vectors = places.vectors(dictionary, found[reads])
    features = dictionary.encode(vectors)[0, position]
    used = np.flatnonzero(features)
    words = unembedding(model.params)
    read = words[token] - (0 if versus is None else words[versus])
    gained = (read * model.params.ln_f.weight).astype(np.float64)
    gained -= gained.mean()
    scale = dictionary.scale(vectors)
    directions = stream_directions(model, dictionary, used)
    if scale.scale is not None:
        directions = directions * scale.scale[0, position]
    effects = np.zeros(len(features))
    effects[used] = features[used] * (directions @ gained) / float(found["ln_final.scale"][0, position, 0])
    here = logits[0, position].astype(np.float64)
    logit = float(here[token] - (0 if versus is None else here[versus]))
    return DirectFeatures(effects, logit - float(effects.sum()), logit)
