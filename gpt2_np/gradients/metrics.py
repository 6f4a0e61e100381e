"""Metrics with their derivatives. A metric gives each row one number, and gradients are gradients of such a number.

A metric is any object with two methods, for logits (B, T, V) and ids (B, T):

    value(logits, ids)     its value, (B,)
    gradient(logits, ids)  ∂(sum of value)/∂logits, (B, T, V)

Rows of unequal lengths are passed to a metric one by one, without padding, so that position −1 is each row's own last
one. A metric whose arguments differ from row to row has a method ``of_row(b)`` that returns the metric of row b alone;
one that takes tokens as texts has ``with_tokens(ids_of)``, which returns it with ids. The metrics here have both, and
also give their value when they are called with logits alone, as sweeps do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..display import Readable
from ..engine.threaded import in_pieces
from ..model.arrays import Array
from ..model.ops import log_normalizer, log_softmax
from ..system.memory import empty
from . import threaded

if TYPE_CHECKING:
    import numpy.typing as npt

Token = int | str | Sequence[int] | Sequence[str] | Array  # one for all rows, or one a row
Position = int | Sequence[int] | Array
There = tuple[Array, Array]  # rows and positions, both (B,)
IGNORED = -100  # transformers' label for positions that aren't predicted


class Metric(Protocol):
    """An object whose value can be differentiated; the top of this module describes its methods."""

    def value(self, logits: Array, ids: Array) -> Array:
        """Return its value: (B, T, V) logits of (B, T) ids → (B,)."""
        ...

    def gradient(self, logits: Array, ids: Array) -> Array:
        """Return the gradient of the sum of its values: (B, T, V)."""
        ...


def cross_entropy(labels: npt.ArrayLike | None = None) -> CrossEntropy:
    """Return transformers' loss of a row: the mean of −log p(label) over its labels, in nats.

    Labels are shifted inside: label t is predicted from the positions before it. They are the ids themselves unless
    given, and have the ids' shape. −100 is ignored. ``ValueError``, when the metric is evaluated, for a row without any
    label.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import cross_entropy
        >>> ids = model.to_ids("The old man had three sons.")
        >>> cross_entropy().value(model([ids]), [ids]).shape
        (1,)
    """
    return CrossEntropy(labels)


def logit_difference(a: Token, b: Token, position: Position = -1) -> LogitDifference:
    """Return how much the logit of token `a` exceeds that of token `b`, at one position.

    Tokens are ids or texts of one token, for all rows or one a row.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import logit_difference
        >>> run = model.run_with_gradients("The king and the", logit_difference(" sea", " king"), "blocks.0.resid_pre")
        >>> run.value.shape, run.grads["blocks.0.resid_pre"].shape
        ((1,), (1, 4, 320))
    """
    return LogitDifference((a, b), position)


def log_probability(token: Token, position: Position = -1) -> LogProbability:
    """Return the log-probability (nats) of a token, an id or a text of one token, at one position.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import log_probability
        >>> run = model.run_with_gradients("The king and the", log_probability(" queen"), ())
        >>> bool(run.value[0] < 0)
        True
    """
    return LogProbability((token,), position)


def kl_divergence(reference_logits: npt.ArrayLike, position: Position = -1) -> KLDivergence:
    """Return KL(reference ‖ model) in nats, at one position: Σ r·(log r − log p). Kullback & Leibler 1951.

    `reference_logits` are another run's logits of the same ids, (T, V) or (B, T, V) (for unequal rows padded as ours),
    or those of the position alone, (V,).

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import kl_divergence
        >>> ids = model.to_ids("The king and the")
        >>> run = model.run_with_gradients(ids, kl_divergence(model(ids)), ())
        >>> bool(abs(run.value[0]) < 1e-5)
        True
    """
    return KLDivergence((), position, reference_logits)


@dataclass(frozen=True, eq=False, repr=False)
class CrossEntropy(Readable):
    """The metric of `cross_entropy`. With ``tokens`` a row's sum is divided by that number, not by the row's own
    labels.
    """

    labels: npt.ArrayLike | None = None
    tokens: int | None = None
    in_place: bool = False  # the gradient is written over the logits, for who won't read them again

    def __call__(self, logits: Array) -> Array:
        return self.value(logits)

    def value(self, logits: Array, ids: Array | None = None) -> Array:
        """(B,) float64 nats."""
        labels, counted, divisors = self._labels(logits, ids)
        flat = logits.reshape(-1, logits.shape[-1])
        losses = np.empty(len(flat))

        def work(some: slice) -> None:
            x = flat[some]
            losses[some] = log_normalizer(x) - x[np.arange(len(x)), labels[some]]

        in_pieces(work, len(flat), flat.size)
        return np.where(counted, losses.reshape(counted.shape), 0).sum(axis=1) / divisors

    def gradient(self, logits: Array, ids: Array | None = None) -> Array:
        """(p − the label's one-hot vector) / what the row is divided by: (B, T, V). Bishop 2006, eq. 4.109."""
        return self.value_and_gradient(logits, ids)[1]

    def value_and_gradient(
        self, logits: Array, ids: Array | None = None, derivative: Callable[..., Array] = threaded.cross_entropy
    ) -> tuple[Array, Array]:
        """Return both, from one softmax. `derivative` is `derivatives.cross_entropy` or its twin."""
        B, T, V = logits.shape
        labels, counted, divisors = self._labels(logits, ids)
        shares = (counted / divisors[:, None]).astype(logits.dtype).reshape(-1)
        flat = logits.reshape(-1, V)
        gradient = flat if self.in_place else empty(flat.shape, logits.dtype)
        losses = derivative(flat, labels, shares, gradient)
        value = np.where(counted, losses.reshape(B, T), 0).sum(axis=1) / divisors
        return value, gradient.reshape(B, T, V)

    def _labels(self, logits: Array, ids: Array | None) -> tuple[Array, Array, Array]:
        """Return each position's label, (B·T,), whether it counts, (B, T), and what each row is divided by, (B,)."""
        B, T, V = logits.shape
        targets = self.targets(ids, (B, T), V)
        counted = targets != IGNORED
        counts = counted.sum(axis=1)
        if not counts.all():
            raise ValueError(f"cross_entropy needs at least one label in each row, got none in row {np.argmin(counts)}")
        divisors = counts if self.tokens is None else np.full(B, self.tokens)
        return np.where(counted, targets, 0).reshape(-1), counted, divisors

    def of_row(self, row: int) -> CrossEntropy:
        """Return the metric of one row alone."""
        return self if self.labels is None else replace(self, labels=np.asarray(self.labels)[row][None])

    def targets(self, ids: Array | None, shape: tuple[int, int], V: int) -> Array:
        """Return the label that each position is to predict, (B, T): that of the next position, −100 at the last."""
        if self.labels is None and ids is None:
            raise ValueError("cross_entropy needs ids or labels: it was given logits alone")
        labels = np.atleast_2d(np.asarray(ids if self.labels is None else self.labels))
        labels = labels[:, : shape[1]] if len(labels) == 1 == shape[0] else labels  # a row alone comes without padding
        if labels.shape != shape or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"labels must be whole numbers of the ids' shape {shape}, got {labels.dtype} {labels.shape}"
            )
        wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= V))]
        if wrong.size:
            raise ValueError(f"labels must be between 0 and {V - 1}, or {IGNORED} to be ignored, got {wrong[0]}")
        targets = np.full(shape, IGNORED)
        targets[:, :-1] = labels[:, 1:]
        return targets


@dataclass(frozen=True, eq=False, repr=False)
class AtPosition(Readable):
    """A metric of the logits at one position of each row: the base of the metrics below."""

    tokens: tuple[Token, ...] = ()
    position: Position = -1

    def __call__(self, logits: Array) -> Array:
        return self.value(logits)

    def value(self, logits: Array, ids: Array | None = None) -> Array:
        """(B,) float64."""
        there = self._there(logits)
        return self.value_there(logits[there].astype(np.float64), there, self._ids(logits))

    def gradient(self, logits: Array, ids: Array | None = None) -> Array:
        """(B, T, V), 0 but at the position."""
        there = self._there(logits)
        gradient = np.zeros_like(logits)
        gradient[there] = self.gradient_there(logits[there].astype(np.float64), there, self._ids(logits))
        return gradient

    def value_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """Return the value for the position's logits, (B, V) float64; the row and position of each; (B,) tokens:
        (B,).
        """
        raise NotImplementedError

    def gradient_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """Return its gradient: (B, V)."""
        raise NotImplementedError

    def of_row(self, row: int) -> AtPosition:
        """Return the metric of one row alone."""
        tokens = tuple(_of_row(token, row) for token in self.tokens)
        return replace(self, tokens=tokens, position=_of_row(self.position, row))

    def with_tokens(self, ids_of: Callable[[str], Sequence[int]]) -> AtPosition:
        """Return the metric with tokens as ids; `ids_of` encodes texts. ``ValueError`` for a text that isn't one
        token.
        """
        return replace(self, tokens=tuple(_token_ids(token, ids_of) for token in self.tokens))

    def _there(self, logits: Array) -> There:
        B, T, _ = logits.shape
        position = _a_row(self.position, B, "position")
        wrong = position[(position < -T) | (position >= T)]
        if wrong.size:
            raise ValueError(f"position must be between {-T} and {T - 1}, got {wrong[0]}")
        return np.arange(B), position % T

    def _ids(self, logits: Array) -> tuple[Array, ...]:
        B, _, V = logits.shape
        tokens = tuple(_a_row(token, B, "a token") for token in self.tokens)
        for ids in tokens:
            wrong = ids[(ids < 0) | (ids >= V)]
            if wrong.size:
                raise ValueError(f"ids must be between 0 and {V - 1}, got {wrong[0]}")
        return tokens


class LogitDifference(AtPosition):
    """See `logit_difference`."""

    def value_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """logit[a] − logit[b]."""
        rows, (a, b) = there[0], tokens
        return x[rows, a] - x[rows, b]

    def gradient_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """1 at a, −1 at b."""
        rows, (a, b) = there[0], tokens
        gradient = np.zeros_like(x)
        gradient[rows, a] += 1
        gradient[rows, b] -= 1
        return gradient


class LogProbability(AtPosition):
    """See `log_probability`."""

    def value_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """log p(token)."""
        return log_softmax(x)[there[0], tokens[0]]

    def gradient_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """The token's one-hot vector less p. Bishop 2006, eq. 4.109."""
        gradient = -np.exp(log_softmax(x))
        gradient[there[0], tokens[0]] += 1
        return gradient


@dataclass(frozen=True, eq=False, repr=False)
class KLDivergence(AtPosition):
    """See `kl_divergence`."""

    reference_logits: npt.ArrayLike | None = None

    def value_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """Σ r·(log r − log p)."""
        log_r = log_softmax(self._reference(x, there))
        return (np.exp(log_r) * (log_r - log_softmax(x))).sum(axis=-1)

    def gradient_there(self, x: Array, there: There, tokens: tuple[Array, ...]) -> Array:
        """p − r."""
        return np.exp(log_softmax(x)) - np.exp(log_softmax(self._reference(x, there)))

    def of_row(self, row: int) -> KLDivergence:
        """The same for one row alone."""
        reference = np.asarray(self.reference_logits)
        reference = reference[row] if reference.ndim == 3 else reference
        return replace(self, position=_of_row(self.position, row), reference_logits=reference)

    def _reference(self, x: Array, there: There) -> Array:
        """The reference's logits at the position: (B, V) float64."""
        given, (rows, position) = np.asarray(self.reference_logits), there
        fits = given.shape[-1:] == x.shape[-1:] and (given.ndim == 1 or given.shape[-2] > position.max())
        if not fits or given.ndim > 3 or (given.ndim == 3 and len(given) != len(x)):
            rule = "reference_logits must be (V,), (T, V) or (B, T, V), as the run's logits are"
            raise ValueError(f"{rule}, got {given.shape}")
        chosen = given[None] if given.ndim == 1 else given[position] if given.ndim == 2 else given[rows, position]
        return np.broadcast_to(chosen, x.shape).astype(np.float64)


def checked(metric: Any) -> Any:
    """Return the metric if it is one. ``ValueError`` names what it lacks."""
    for name, what in (
        ("value", "value(logits, ids), each row's value: (B,)"),
        ("gradient", "gradient(logits, ids), the gradient of the sum of its values: (B, T, V)"),
    ):
        if not callable(getattr(metric, name, None)):
            raise ValueError(f"a metric needs a method {what}; {type(metric).__name__} has no .{name}")
    return metric


def _of_row(value: Any, row: int) -> Any:
    """Return an argument, which may differ from row to row, for one row."""
    return value if isinstance(value, str) or np.ndim(value) == 0 else value[row]


def _a_row(value: Any, rows: int, what: str) -> Array:
    """Return one integer per row, (B,), from one for all or one for each."""
    numbers = np.asarray(value)
    if numbers.dtype.kind == "U":
        raise ValueError(f"{what} given as a text needs a model with a tokenizer: give its id instead of {value!r}")
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.shape not in ((), (rows,)):
        raise ValueError(f"{what} must be a whole number, or one for each of {rows} rows, got {value!r}")
    return np.broadcast_to(numbers, (rows,))


def _token_ids(token: Any, ids_of: Callable[[str], Sequence[int]]) -> Any:
    """Return one token, or several, as ids."""
    if not isinstance(token, str):
        several = isinstance(token, (list, tuple)) and any(isinstance(one, str) for one in token)
        return [_token_ids(one, ids_of) for one in token] if several else token
    ids = list(ids_of(token))
    if len(ids) != 1:
        raise ValueError(f"{token!r} must be one token of the vocabulary, got {len(ids)}")
    return ids[0]
