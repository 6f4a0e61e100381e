"""Contrastive search: of the likeliest tokens the one that adds something new.

Su et al. 2022, "A Contrastive Framework for Neural Text Generation", as transformers 4 does it
(``GenerationMixin._contrastive_search``); version 5 has moved it out of its core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from . import pipeline, steps
from .errors import require
from .generate import deadline, finish_reason, likeliest, room
from .interface import HiddenStepper, Stepper, Stopping, Token, log_softmax, softmax
from .options import Options

Array = np.ndarray


def contrastive_search(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[Any] | None = None,
) -> Iterator[Token]:
    """Each new id of each prompt as it is chosen.

    Each of the ``top_k`` likeliest tokens is fed; the one with the highest (1 − α) · probability − α · similarity
    wins, α being ``penalty_alpha`` and the similarity the greatest cosine between the hidden state after the token
    and any before it. So the last token too must fit into the context. A list given as `trace` receives a
    `steps.TokenStep` for each id.
    """
    require(hasattr(stepper, "feed_hidden"), "penalty_alpha needs a model that shows its hidden states", stepper)
    hidden_stepper = cast(HiddenStepper, stepper)
    k, alpha, until = options.top_k or 1, options.penalty_alpha or 0.0, deadline(options)
    rooms = [room(prompt, options, None if context is None else context - 1) for prompt in prompts]
    chains = [
        pipeline.build(options, number, len(prompt), len(prompt) + space)
        for number, (prompt, space) in enumerate(zip(prompts, rooms, strict=True))
    ]
    texts = [list(prompt) for prompt in prompts]

    logits, states = hidden_stepper.feed_hidden(prompts)
    options.check_vocabulary(logits.shape[-1])
    require(k <= logits.shape[-1], f"top_k must be at most the vocabulary's size ({logits.shape[-1]})", k)
    seen = [unit(state) for state in states]  # of each prompt: the directions of all its hidden states, (S, D)
    growing = list(range(len(prompts)))
    while growing:
        changes: list[list[steps.Change]] = [[] for _ in growing]
        scores = pipeline.side_by_side(
            chains, [(row, texts[row]) for row in growing], logits, None if trace is None else steps.watching(changes)
        )
        logprobs, late = log_softmax(logits), time.monotonic() > until
        probabilities = softmax(scores)
        tokens = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
        stepper.reorder([place for place in range(len(growing)) for _ in range(k)])
        following, states = hidden_stepper.feed_hidden(tokens.reshape(-1, 1).tolist())

        kept, staying = [], []
        for place, row in enumerate(growing):
            mine = unit(np.concatenate(states[place * k : place * k + k]))
            similarity = (mine @ seen[row].T).max(axis=-1)
            worth = (1 - alpha) * probabilities[place, tokens[place]] - alpha * similarity
            # A forbidden token is among the k where fewer are left.
            chosen = int(np.where(scores[place, tokens[place]] > -np.inf, worth, -np.inf).argmax())
            token = int(tokens[place, chosen])
            seen[row] = np.concatenate([seen[row], mine[chosen, None]])
            texts[row].append(token)
            new = texts[row][len(prompts[row]) :]
            reason = finish_reason(prompts[row], new, late or len(new) == rooms[row], options, stopping)
            if reason is None:
                kept.append(place * k + chosen)
                staying.append(row)
            if trace is not None:
                trace.append(
                    steps.token_step(
                        row,
                        len(new),
                        token,
                        float(logprobs[place, token]),
                        logits[place],
                        scores[place],
                        changes[place],
                        reason,
                    )
                )
            yield Token(
                row,
                token,
                float(logprobs[place, token]),
                reason,
                likeliest(logprobs[place], options.top_logprobs),
                scores[place].copy() if options.output_scores else None,
            )
        growing = staying
        if growing:
            stepper.reorder(kept)
            logits = following[kept]


def unit(states: Array) -> Array:
    """Each hidden state at length 1."""
    return states / np.sqrt((states * states).sum(axis=-1, keepdims=True))
