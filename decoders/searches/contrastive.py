"""Contrastive search: among the likeliest tokens it chooses one that differs from the text so far.

Su et al. 2022, "A Contrastive Framework for Neural Text Generation", as transformers 4 does it
(``GenerationMixin._contrastive_search``); version 5 has moved it out of its core.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from ..base.errors import require
from ..base.interface import Array, HiddenStepper, Token, log_softmax, softmax
from ..base.method import Documentation, Method, Option
from ..base.task import Task
from ..base.value_types import NUMBER
from ..processors import pipeline

ALPHA = Option(
    "penalty_alpha",
    NUMBER,
    interval="(0, 1]",
    off=(0,),
    group="Contrast",
    help="Contrastive search, with --top-k: how much resemblance to earlier tokens counts, from 0 (greedy) to 1.",
)


def contrastive_search(task: Task, penalty_alpha: float, top_k: int) -> Iterator[Token]:
    """Each new id of each prompt as it is chosen.

    Each of the ``top_k`` likeliest tokens is fed; the one with the highest (1 − α) · probability − α · similarity
    wins, α being ``penalty_alpha`` and the similarity the greatest cosine between the hidden state after the token
    and any before it.
    """
    rule = "penalty_alpha needs a model that shows its hidden states"
    require(hasattr(task.stepper, "feed_hidden"), rule, task.stepper)
    stepper, k, alpha = cast(HiddenStepper, task.stepper), top_k, penalty_alpha
    chains = [prompt.chain(()) for prompt in task.prompts]
    texts = [list(prompt.ids) for prompt in task.prompts]

    logits, states = stepper.feed_hidden([prompt.ids for prompt in task.prompts])
    task.check_vocabulary(logits.shape[-1])
    require(k <= logits.shape[-1], f"top_k must be at most the vocabulary's size ({logits.shape[-1]})", k)
    seen = [unit(state) for state in states]  # of each prompt: the directions of all its hidden states, (S, D)
    growing = list(range(len(texts)))
    while growing:
        changes, watch = task.watch(len(growing))
        scores = pipeline.side_by_side(chains, [(row, texts[row]) for row in growing], logits, watch)
        logprobs, late = log_softmax(logits), task.late()
        probabilities = softmax(scores)
        tokens = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
        stepper.reorder([place for place in range(len(growing)) for _ in range(k)])
        following, states = stepper.feed_hidden(tokens.reshape(-1, 1).tolist())

        kept, staying = [], []
        for place, row in enumerate(growing):
            mine = unit(np.concatenate(states[place * k : place * k + k]))
            similarity = (mine @ seen[row].T).max(axis=-1)
            worth = (1 - alpha) * probabilities[place, tokens[place]] - alpha * similarity
            # A forbidden token is among the k where fewer are left.
            chosen = int(np.where(scores[place, tokens[place]] > -np.inf, worth, -np.inf).argmax())
            token, prompt = int(tokens[place, chosen]), task.prompts[row]
            seen[row] = np.concatenate([seen[row], mine[chosen, None]])
            texts[row].append(token)
            new = texts[row][len(prompt.ids) :]
            reason = task.finish_reason(prompt, new, late)
            if reason is None:
                kept.append(place * k + chosen)
                staying.append(row)
            yield task.token(
                row, len(new), token, logits[place], logprobs[place], scores[place], changes[place], reason
            )
        growing = staying
        if growing:
            stepper.reorder(kept)
            logits = following[kept]


def unit(states: Array) -> Array:
    """Scale each hidden state to length 1."""
    return states / np.sqrt((states * states).sum(axis=-1, keepdims=True))


def check(options: Any) -> None:
    """Check that it chooses among at least two tokens."""
    rule = "penalty_alpha needs top_k of at least 2"
    require(options.top_k is not None and options.top_k > 1, rule, options.top_k)


METHODS = (
    Method(
        "contrastive search",
        options=(ALPHA,),
        run=contrastive_search,
        streams=True,
        reads=("top_k",),
        takes=("top_k",),
        feeds_last=True,
        excludes=("do_sample", "num_beams", "dola_layers", "exhaustive"),
        check=check,
        documentation=(
            Documentation(
                "contrastive search",
                what="Of the k likeliest tokens, the one that is likely and least resembles the text so far is chosen.",
                formula=r"(1 - \alpha)\,p_i - \alpha \max_j \cos(h_i, h_j)",
                source="Su et al. 2022",
                when="For deterministic text that doesn't loop.",
                example={"penalty_alpha": 0.6, "top_k": 4},
            ),
        ),
        trials={"contrastive search": {"penalty_alpha": 0.6, "top_k": 4}},
    ),
)
