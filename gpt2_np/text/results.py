"""`Generation`, the result of decoding, and its pieces while it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from decoders import Completion, Token
from decoders.base.interface import Assistance

from .. import display
from .tokenizer import Tokenizer


@dataclass(frozen=True, repr=False)
class Generation:
    """One generated text.

    ``text`` decodes ``ids``, the new ids, except an end-of-text that the model chose; ``logprobs`` are the model's own
    log-probabilities of them (nats), before any processor; ``finish_reason`` is "stop" (end-of-text, a stop string) or
    "length" (max_new_tokens, or the context's end). ``score`` is a beam's. ``top`` and ``scores`` are present if
    ``top_logprobs`` and ``output_scores`` asked for them, ``assistance`` (passes, proposed, accepted, draft_passes) if
    prompt look-up or a draft model assisted. ``beam_indices`` come with the ``scores`` of beams: of each id the row
    that it continued, as transformers counts rows. ``tokens`` is the text that each id completes, an end-of-text
    included; it is empty without a tokenizer.
    """

    prompt: str
    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: str
    score: float | None = None
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    scores: tuple[np.ndarray, ...] = ()
    assistance: Assistance | None = None
    beam_indices: tuple[int, ...] = ()
    tokens: tuple[str, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        mean = float(np.mean(self.logprobs)) if self.logprobs else float("nan")
        score = "" if self.score is None else f", score={self.score:.4g}"
        return (
            f"Generation(text={display.brief(self.text, 120)}, {len(self.ids)} ids, "
            f"finish_reason={self.finish_reason!r}, mean log-probability {mean:.2f}{score})"
        )

    def _repr_html_(self) -> str:
        pieces = self.tokens or tuple(f" {token}" for token in self.ids)
        chances = np.exp(self.logprobs).tolist()
        hints = [
            f"id {token}: probability {chance:.1%}, log-probability {logprob:.3f}"
            for token, chance, logprob in zip(self.ids, chances, self.logprobs, strict=True)
        ]
        legend = "the model's own probability of each new token, before any option changed it (hover for numbers)"
        score = "" if self.score is None else f" Beam score {self.score:.4g}."
        return display.boxed(
            display.words(pieces, chances, hints, before=self.prompt),
            display.scale(legend, 1.0, False),
            note=f"{len(self.ids)} new tokens; it ended by {self.finish_reason!r}.{score}",
        )


def generation(
    prompt: Sequence[int], completion: Completion, eos: Sequence[int], tokenizer: Tokenizer | None
) -> Generation:
    """Turn a completion into a `Generation` with its texts, which are empty without a tokenizer."""
    shown = completion.ids
    if shown and shown[-1] in eos:
        shown = shown[:-1]
    before, text = ("" if tokenizer is None else tokenizer.decode(ids) for ids in (prompt, shown))
    return Generation(
        before,
        text,
        completion.ids,
        completion.logprobs,
        completion.finish_reason,
        completion.score,
        tuple(completion.top),
        tuple(completion.scores),
        completion.assistance,
        tuple(completion.beam_indices),
        () if tokenizer is None else tuple(completed(completion.ids, tokenizer)),
    )


def completed(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Return the text that each id completes: if ids share a character's bytes, the last of them has all of it."""
    streamer = tokenizer.streamer()
    texts = [streamer.feed(token) for token in ids]
    return [*texts[:-1], texts[-1] + streamer.finish()] if texts else []


def pieces(tokens: Iterator[Token], tokenizer: Tokenizer, eos: Sequence[int]) -> Iterator[str]:
    """Yield text from tokens as they come, without an end-of-text."""
    streamer = tokenizer.streamer()
    for token in tokens:
        piece = "" if token.id in eos else streamer.feed(token.id)
        if token.finish_reason is not None:
            piece += streamer.finish()
        if piece:
            yield piece
