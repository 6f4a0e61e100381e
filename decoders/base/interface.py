"""The interface between decoders and a language model, and the data that passes between the parts of decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

Array = np.ndarray
FinishReason = Literal["stop", "length"]
FORBIDDEN = -np.inf  # the score of a token that may not be chosen


class Stepper(Protocol):
    """The model as decoding sees it: rows of text that grow."""

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        """Continue each row by its new ids, at first its prompt; return (rows, V) float32 logits of the next token."""
        ...

    def reorder(self, rows: Sequence[int]) -> None:
        """Make new row i a continuation of old row ``rows[i]``: this expands, permutes or drops rows."""
        ...


class RewindableStepper(Stepper, Protocol):
    """A stepper that can take ids back, which speculative decoding needs."""

    def feed_all(self, ids: Sequence[Sequence[int]]) -> list[Array]:
        """Feed as `feed` does, and return the logits after every new id: for each row (its new ids, V)."""
        ...

    def rewind(self, counts: Sequence[int]) -> None:
        """Forget each row's last ``counts[row]`` ids."""
        ...


class HiddenStepper(Stepper, Protocol):
    """A stepper that also returns hidden states, which contrastive search compares."""

    def feed_hidden(self, ids: Sequence[Sequence[int]]) -> tuple[Array, list[Array]]:
        """Return `feed`'s logits, and the last hidden state after every new id: for each row (its new ids, D)."""
        ...


class EarlyExitStepper(Stepper, Protocol):
    """A stepper that also returns the logits of early layers, which DoLa contrasts."""

    @property
    def n_layer(self) -> int:
        """The number of layers."""
        ...

    @property
    def tied(self) -> bool:
        """Whether embedding and unembedding are one matrix."""
        ...

    def feed_layers(self, ids: Sequence[Sequence[int]], layers: Sequence[int]) -> tuple[Array, Array]:
        """Return `feed`'s logits, and those of the input of each of `layers` (0: the embedding): (layers, rows, V)."""
        ...


# (each row's ids so far, prompt included; (rows, V) scores) → (rows, V) scores. Never changes its arguments.
LogitsProcessor = Callable[[Sequence[Array], Array], Array]

# (the prompt, the new ids so far) → whether to stop here.
Stopping = Callable[[Sequence[int], Sequence[int]], bool]


@dataclass(frozen=True)
class Assistance:
    """Statistics of assisted decoding, for one text.

    ``passes`` counts the model's runs (the prompt's pass and that of the first candidates are one), where each token
    would have taken one; ``proposed`` counts the candidates; ``accepted`` those that became text; ``draft_passes`` the
    assistant model's runs.
    """

    passes: int = 0
    proposed: int = 0
    accepted: int = 0
    draft_passes: int = 0


@dataclass(frozen=True)
class Token:
    """One new id of one row.

    ``logprob`` is the model's own log-probability of it (nats), before any processor. ``top`` lists the likeliest
    alternatives as (id, logprob) where they were asked for, ``scores`` what the sampler saw, (V,) float32.
    ``assistance`` comes with the last token of a text that was assisted.
    """

    row: int
    id: int
    logprob: float
    finish_reason: FinishReason | None = None
    top: tuple[tuple[int, float], ...] = ()
    scores: Array | None = None
    assistance: Assistance | None = None


@dataclass
class Completion:
    """The result of one row: the new ids (a chosen end-of-text is kept), their log-probabilities, the finish reason.

    ``score`` is a beam's: its sum of log-probabilities divided by its length to the power of length_penalty. Where
    ``output_scores`` asks for them, ``scores`` are (V,) for each id: what it was chosen by. Among beams these are
    processed log-probabilities, and ``beam_indices`` says for each id which row it continued, counted over all
    prompts: transformers' ``scores[step][beam_indices[text, step]]`` is ``scores[step]`` here.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    score: float | None = None
    top: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    scores: list[Array] = field(default_factory=list)
    assistance: Assistance | None = None
    beam_indices: list[int] = field(default_factory=list)


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities along the last axis, in the input's dtype.

    They are computed row by row: a row of a vocabulary stays in the cache from one step to the next.
    """
    shifted, V = np.empty(logits.shape, logits.dtype), logits.shape[-1]
    exponentials = np.empty(V, logits.dtype)
    with np.errstate(over="ignore"):  # −inf, where two scores are further apart than float32 reaches
        for row, out in zip(logits.reshape(-1, V), shifted.reshape(-1, V), strict=True):
            np.subtract(row, row.max(), out=out)
            out -= np.log(np.exp(out, out=exponentials).sum())
    return shifted


def softmax(logits: Array) -> Array:
    """Return probabilities along the last axis, in the input's dtype; −inf becomes exactly 0."""
    with np.errstate(over="ignore"):  # −inf, where two scores are further apart than float32 reaches
        e: Array = logits - logits.max(axis=-1, keepdims=True)
    np.exp(e, out=e)
    e /= e.sum(axis=-1, keepdims=True)
    return e
