"""Assisted (speculative) decoding: several tokens per pass of the model, and the same text as without assistance.

Candidates for the next tokens are proposed cheaply, from the text itself or by a smaller model; the model checks all of
them in one pass and keeps those that it agrees with. Leviathan et al. 2023, "Fast Inference from Transformers via
Speculative Decoding"; Chen et al. 2023, "Accelerating Large Language Model Decoding with Speculative Sampling"; the
rules are those of transformers' ``_assisted_decoding``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from ..base.errors import require
from ..base.given import excluded, given
from ..base.interface import Array, Assistance, RewindableStepper, Token, log_softmax, softmax
from ..base.method import Method, Option
from ..base.readable import Readable
from ..base.task import Draws, Prompt, Stream, Task
from ..base.value_types import ANYTHING, NAME, NUMBER, WHOLE
from ..processors import pipeline
from ..random.draws import fastest, multinomial
from .candidates import Candidates, Draft, PromptLookup

# (the place among the candidates, the (1, V) scores there) → the id that follows.
Choose = Callable[[int, Array], int]
# (the random stream, the candidates, what they were drawn from) → how to choose at their places.
Choosing = Callable[[Stream, Sequence[int], Sequence[Array]], Choose]

# So many ids per pass: with few positions, a pass gives the same bits as one position at a time.
IDS_PER_PASS = 48
GROUP = "Assistance (faster, the same text)"


def prompt_lookup(
    task: Task, prompt_lookup_num_tokens: int, max_matching_ngram_size: int, prompt_lookup_draws: str
) -> Iterator[Token]:
    """Each new id as it is chosen, candidates being what followed the newest ids before.

    Greedy decoding gives the tokens and scores that it gives without assistance, and so does sampling one text, for
    the same seed: a candidate is kept where it is what would have been drawn. With the draws of "transformers" sampling
    gives its tokens instead: it draws at all candidates at once, also where the first is wrong.
    """
    sources: list[PromptLookup] = []

    def source(prompt: Prompt, V: int) -> PromptLookup:
        sources.append(PromptLookup(task, prompt, prompt_lookup_num_tokens, max_matching_ngram_size, V))
        return sources[-1]

    def choosing(stream: Stream, candidates: Sequence[int], drawn_from: Sequence[Array]) -> Choose:
        return at_once(stream, sources[-1].found)

    return assisted(task, source, choosing=choosing if prompt_lookup_draws == "transformers" else None)


def draft_model(
    task: Task,
    assistant_model: Callable[[], RewindableStepper],
    num_assistant_tokens: int,
    num_assistant_tokens_schedule: str,
    assistant_confidence_threshold: float,
) -> Iterator[Token]:
    """Each new id as it is chosen, candidates being what a smaller model says.

    Greedy decoding gives the tokens and scores that it gives without assistance. When sampling, candidates are kept by
    rejection sampling: the same distribution, for a seed another text than without, and the one that transformers
    draws with this assistant (where ids that it pads with are none of the text's).
    """
    adapts = num_assistant_tokens_schedule in ("heuristic", "heuristic_transient")
    threshold = assistant_confidence_threshold
    return assisted(
        task,
        lambda prompt, V: Draft(task, prompt, V, assistant_model(), num_assistant_tokens, adapts, threshold),
        choosing=rejecting,
    )


def assisted(
    task: Task, source_of: Callable[[Any, int], Candidates], *, choosing: Choosing | None = None
) -> Iterator[Token]:
    """Each new id as it is chosen, one text after the other: ``task.copies`` of each prompt.

    `choosing` says how sampling chooses among candidates, where not as it does without.
    """
    stepper = task.stepper
    rule = "assistance needs a stepper that can take ids back (feed_all and rewind)"
    require(hasattr(stepper, "feed_all") and hasattr(stepper, "rewind"), rule, type(stepper).__name__)
    stream = task.stream if choosing is not None else None
    ahead = Verification(cast(RewindableStepper, stepper))
    for row, prompt in enumerate(prompt for prompt in task.prompts for _ in range(task.copies)):
        chain = prompt.chain(())
        text, passes, proposed, accepted = list(prompt.ids), 0, 0, 0
        ahead.begin(prompt.ids)
        task.check_vocabulary(ahead.V)
        source = source_of(prompt, ahead.V)
        reason = None
        while reason is None:
            found, drawn_from = source.propose(text, prompt.longest - len(text) - 1)
            choose: Choose = (
                choosing(stream, found, drawn_from)
                if stream is not None and choosing is not None
                else lambda place, scores: int(task.choose(scores, [0], 1)[0])
            )
            start, passes = len(text), passes + 1
            for place, logits in enumerate(ahead.follow(text, found)):
                changes, watch = task.watch(1)
                scores = pipeline.side_by_side([chain], [(0, text)], logits, watch)
                token, logprobs = choose(place, scores), log_softmax(logits[0])
                agreed = place < len(found) and token == found[place]
                text.append(token)
                new = text[len(prompt.ids) :]
                reason = task.finish_reason(prompt, new, task.late())
                accepted += agreed
                ended = None
                if reason is not None:
                    ended = Assistance(passes, proposed + len(found), accepted, source.passes)
                yield task.token(row, len(new), token, logits[0], logprobs, scores[0], changes[0], reason, ended)
                if reason is not None or not agreed:
                    break
            proposed += len(found)
            source.learn(len(found), len(text) - start - 1)


class Verification(Readable):
    """The model's verdict after a text and after each of its candidates, one text at a time."""

    def __init__(self, stepper: RewindableStepper) -> None:
        self.stepper, self.fed = stepper, 0
        self.newest: Array | None = None  # (1, V) logits after the prompt, until they are used

    def begin(self, prompt: Sequence[int]) -> None:
        """Feed a prompt, in the place of the text before."""
        if self.fed:
            self.stepper.rewind([self.fed])
        self.newest, self.fed = self.stepper.feed([prompt]), len(prompt)
        self.V = self.newest.shape[-1]

    def follow(self, text: Sequence[int], candidates: Sequence[int]) -> Iterator[Array]:
        """(1, V) logits after the text, then after each candidate, as long as they are asked for.

        What was fed and isn't asked for any more is taken back before the next call.
        """
        kept = len(text) - (self.newest is None)
        if self.fed > kept:
            self.stepper.rewind([self.fed - kept])
            self.fed = kept
        waiting = [*text[kept:], *candidates]
        if self.newest is not None:
            first, self.newest = self.newest, None
            yield first
        for start in range(0, len(waiting), IDS_PER_PASS):
            part = waiting[start : start + IDS_PER_PASS]
            (logits,) = self.stepper.feed_all([part])
            self.fed += len(part)
            yield from logits[:, None]


def rejecting(stream: Stream, candidates: Sequence[int], drawn_from: Sequence[Array]) -> Choose:
    """Algorithm 1 of Leviathan et al.: with probability p / q a candidate stays, else a draw from (p − q)₊ replaces it.

    `drawn_from` are the q, (V,) each; p are the scores' probabilities. Behind the last candidate a draw from p.
    """
    uniforms = stream.uniform(len(candidates)) if candidates else ()

    def choose(place: int, scores: Array) -> int:
        p = softmax(scores)
        if place < len(candidates):
            token, q = candidates[place], drawn_from[place]
            ratio = p[0, token] / q[token]
            if ratio > 0 and uniforms[place] <= ratio:
                return token
            rest = np.maximum(p - q, 0)
            total = rest.sum()
            p = rest / total if total > 0 else p  # no rest: rounding alone was in the way
        return int(multinomial(stream, p, 1, [0], 1)[0, 0])

    return choose


def at_once(stream: Stream, candidates: int) -> Choose:
    """``torch.multinomial`` for a number of candidates and the id after them, as transformers draws."""
    draws: Draws | None = None

    def choose(place: int, scores: Array) -> int:
        nonlocal draws
        V = scores.shape[-1]
        if draws is None:
            draws = stream.draw(candidates + 1, V)
        p = softmax(scores)[0]
        places = np.flatnonzero(p)
        return int(places[fastest(draws, p[places], place * V + places, 1)[0]])

    return choose


def check_draws(options: Any) -> None:
    """Draws that are given are taken one by one."""
    if given(options, "prompt_lookup_draws"):
        excluded("prompt_lookup_draws", options, "uniforms")


def check(options: Any) -> None:
    """The assistant must be what makes a stepper."""
    rule = "assistant_model must be what makes a stepper"
    require(callable(options.assistant_model), rule, options.assistant_model)


ELSEWHERE = ("num_beams", "penalty_alpha", "dola_layers", "exhaustive")
METHODS = (
    Method(
        "prompt look-up",
        options=(
            Option(
                "prompt_lookup_num_tokens",
                WHOLE,
                interval="[1, inf)",
                group=GROUP,
                metavar="N",
                help="Draft the N tokens that followed the newest tokens when they last occurred.",
            ),
            Option(
                "max_matching_ngram_size",
                WHOLE,
                otherwise=2,
                interval="[1, inf)",
                needs=("prompt_lookup_num_tokens",),
                group=GROUP,
                help="The longest n-gram that is looked up.",
            ),
            Option(
                "prompt_lookup_draws",
                NAME,
                otherwise="plain",
                off=("plain",),
                choices=("plain", "transformers"),
                needs=("prompt_lookup_num_tokens",),
                only="sampling",
                group=GROUP,
                help="When sampling, draw as without look-up (plain), or as transformers draws with it.",
            ),
        ),
        run=prompt_lookup,
        streams=True,
        with_profiles=True,
        excludes=ELSEWHERE,
        check=check_draws,
        trials={"prompt look-up": {"prompt_lookup_num_tokens": 4}},
    ),
    Method(
        "draft model",
        options=(
            Option(
                "assistant_model",
                ANYTHING,
                group=GROUP,
                metavar="NAME",
                help="Draft with this smaller model, which must have the same vocabulary (speculative decoding).",
            ),
            Option(
                "num_assistant_tokens",
                WHOLE,
                otherwise=20,
                off=(20,),
                interval="[1, inf)",
                needs=("assistant_model", "assistant_early_exit"),
                group=GROUP,
                help="How many tokens are drafted at a time.",
            ),
            Option(
                "num_assistant_tokens_schedule",
                NAME,
                otherwise="constant",
                off=("constant",),
                choices=("constant", "heuristic", "heuristic_transient"),
                needs=("assistant_model", "assistant_early_exit"),
                group=GROUP,
                help="Heuristic: draft more after a draft that was accepted whole, and fewer otherwise.",
            ),
            Option(
                "assistant_confidence_threshold",
                NUMBER,
                otherwise=0.4,
                off=(0.4,),
                interval="[0, 1]",
                needs=("assistant_model", "assistant_early_exit"),
                group=GROUP,
                help="A draft ends after a token less probable than this.",
            ),
        ),
        run=draft_model,
        streams=True,
        with_profiles=True,
        excludes=(*ELSEWHERE, "prompt_lookup_num_tokens", "uniforms"),
        check=check,
        trials={"draft model": {"assistant_model": None}},  # a model's own `start`, which whoever tries it puts here
    ),
)
