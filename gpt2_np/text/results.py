"""What comes out of decoding: texts that were written, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from decoders import Completion, Token
from decoders.base.interface import Assistance

from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Generation:
    """One text that was written.

    ``text`` decodes ``ids``, the new ids, but for an end-of-text that the model chose; ``logprobs`` are the model's own
    log-probabilities of them (nats), before any processor; ``finish_reason`` is "stop" (end-of-text, a stop string)
    or "length" (max_new_tokens, or the context's end). ``score`` is a beam's. ``top`` and ``scores`` are there where
    ``top_logprobs`` and ``output_scores`` asked for them, ``assistance`` (passes, proposed, accepted, draft_passes)
    where prompt look-up or a draft model assisted. ``beam_indices`` come with the ``scores`` of beams: of each id the
    row that it continued, as transformers counts rows.
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


def generation(
    prompt: Sequence[int], completion: Completion, eos: Sequence[int], tokenizer: Tokenizer | None
) -> Generation:
    """A completion with its texts, which are empty where there is no tokenizer."""
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
    )


def pieces(tokens: Iterator[Token], tokenizer: Tokenizer, eos: Sequence[int]) -> Iterator[str]:
    """Text from tokens as they come, an end-of-text left out."""
    streamer = tokenizer.streamer()
    for token in tokens:
        piece = "" if token.id in eos else streamer.feed(token.id)
        if token.finish_reason is not None:
            piece += streamer.finish()
        if piece:
            yield piece
