"""Banned strings: a phrase that was written is undone, whatever tokens spell it, and another continuation is taken.

KoboldCpp's "anti-slop" and ExLlamaV2's ``banned_strings``; the idea is sam-paech's antislop-sampler. A rule about
tokens can't say this: a phrase is spelt in many ways, and each of its tokens is good elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from ..base.errors import require
from ..base.interface import FORBIDDEN, Array, RewindableStepper, Token, log_softmax
from ..base.method import Documentation, Method, Option
from ..base.task import Prompt, Task
from ..base.value_types import ANYTHING
from ..base.watching import Change
from ..processors import pipeline

BANNED = Option(
    "banned_strings",
    ANYTHING,
    group="Rules",
    flag="--banned-string",
    metavar="TEXT",
    repeatable=True,
    in_text="str | Sequence[str]",
    help="Never generate this text, whatever tokens spell it; repeatable.",
)


class Phrases(Protocol):
    """Phrases that must not be written, as a function of the new ids alone."""

    def begins(self, new: Sequence[int]) -> int | None:
        """Return at which of the new ids a phrase begins that ends within the newest; None if none does."""
        ...

    def pending(self, new: Sequence[int]) -> int:
        """Return how many of the newest ids may still turn out to be the beginning of a phrase."""
        ...


@dataclass(frozen=True)
class Banned:
    """Phrases as bytes, and what bytes an id stands for. ASCII letters count as the same, capital or small."""

    spelling: Callable[[int], bytes]
    phrases: tuple[bytes, ...]

    def __post_init__(self) -> None:
        require(len(self.phrases) > 0, "banned_strings must hold at least one text", list(self.phrases))
        require(all(self.phrases), "banned_strings must be texts of at least one character", list(self.phrases))
        object.__setattr__(self, "phrases", tuple(one.lower() for one in self.phrases))

    def __repr__(self) -> str:
        return repr([one.decode("utf-8", "replace") for one in self.phrases])

    def begins(self, new: Sequence[int]) -> int | None:
        """At which of the new ids the earliest phrase begins that ends within the newest of them."""
        text, starts = self.newest(new)
        before = starts[-1]
        ends_now = [place for one in self.phrases if (place := text.find(one, max(0, before - len(one) + 1))) >= 0]
        if not ends_now:
            return None
        # The last id that starts at or before the phrase does; ids that stand for nothing come before what follows.
        inside = int(np.searchsorted(starts, min(ends_now), side="right")) - 1
        return len(new) - len(starts) + inside

    def pending(self, new: Sequence[int]) -> int:
        """Return how many of the newest ids hold the longest end of the text that is a phrase's beginning."""
        text, starts = self.newest(new)
        longest = max(
            (n for one in self.phrases for n in range(1, min(len(one), len(text) + 1)) if text.endswith(one[:n])),
            default=0,
        )
        if not longest:
            return 0
        return len(starts) + 1 - int(np.searchsorted(starts, len(text) - longest, side="right"))

    def newest(self, new: Sequence[int]) -> tuple[bytes, list[int]]:
        """As much of the text's end as any phrase may reach over, and where in it each of its ids starts."""
        words: list[bytes] = []
        length, longest = 0, max(map(len, self.phrases))
        for place, token in enumerate(reversed(new)):
            words.insert(0, self.spelling(token).lower())
            length += len(words[0]) if place else 0
            if length >= longest:
                break
        starts = np.cumsum([0, *map(len, words[:-1])])
        return b"".join(words), starts.tolist()


class Held(NamedTuple):
    """An id that may still be undone, with the data that it was chosen by."""

    token: int
    logits: Array
    scores: Array
    changes: Sequence[Change]


def rewinding(task: Task, banned_strings: Phrases) -> Iterator[Token]:
    """Each new id once it can't be undone any more, one text after the other: ``task.copies`` of each prompt.

    Where a phrase has been written, the text goes back to the id in which it begins, and that id can't come there again
    while the text before it is the same. Where nothing is left at a place, the id before it is undone too; where that
    has been given away already, the text ends there ("length"); and where nothing may even begin a text, it is a
    ``ValueError``.

    Ids are given away up to a place which no phrase can reach over, neither now nor after an undoing. Every choice
    takes the random stream's next draw, those that are undone as well: until the first of them, one text is what it is
    without banned strings, for the same seed.
    """
    stepper = task.stepper
    rule = "banned_strings needs a stepper that can take ids back (rewind)"
    require(hasattr(stepper, "rewind"), rule, type(stepper).__name__)
    fed = 0
    for row, prompt in enumerate(prompt for prompt in task.prompts for _ in range(task.copies)):
        if fed:
            cast(RewindableStepper, stepper).rewind([fed])
        fed = yield from written(task, cast(RewindableStepper, stepper), row, prompt, banned_strings)


def written(
    task: Task, stepper: RewindableStepper, row: int, prompt: Prompt, phrases: Phrases
) -> Generator[Token, None, int]:
    """One text's ids; returns how many ids the stepper has been fed."""
    chain, start = prompt.chain(()), len(prompt.ids)
    text, held = list(prompt.ids), list[Held]()
    waiting: Held | None = None  # the newest id that can't be undone, which may turn out to be the last
    given = 0  # how many can't be undone
    banned: dict[int, set[int]] = {}  # by place, what may not come there while the text before it is the same
    reach = [0]  # of the text's first n ids, how many no phrase that is under way there holds
    logits = stepper.feed([prompt.ids])
    task.check_vocabulary(logits.shape[-1])
    while True:
        place = len(text) - start
        chosen = choice(task, chain, text, logits, banned.get(place, set()))
        new = text[start:] + ([] if chosen is None else [chosen.token])
        undone = place - 1 if chosen is None else phrases.begins(new)
        if undone is None:
            assert chosen is not None
            text.append(chosen.token)
            held.append(chosen)
            reach.append(len(new) - phrases.pending(new))
            reason = task.finish_reason(prompt, new, task.late())
            safe = len(new) if reason else secure(reach, given)
            while given < safe:
                if waiting is not None:
                    yield told(task, row, given, waiting, None)
                waiting, given = held.pop(0), given + 1
            if reason and waiting is not None:
                yield told(task, row, given, waiting, reason)
                return len(text) - 1
            logits = stepper.feed([text[-1:]])
            continue
        if undone < given:
            if waiting is None:
                raise ValueError(f"banned_strings must leave something to write, got {phrases!r:.100}")
            yield told(task, row, given, waiting, "length")
            return len(text)
        if undone < place:
            stepper.rewind([place - undone])
            logits = held[undone - given].logits[None]
        banned = {there: ids for there, ids in banned.items() if there <= undone}
        banned.setdefault(undone, set()).add(new[undone])
        del text[start + undone :], reach[undone + 1 :], held[undone - given :]


def secure(reach: Sequence[int], given: int) -> int:
    """Return how many of the ids can't be undone: up to a place that no phrase can reach over."""
    lowest = len(reach)
    for place in range(len(reach) - 1, given, -1):
        lowest = min(lowest, reach[place])
        if lowest >= place:
            return place
    return given


def choice(task: Task, chain: Sequence[Any], text: Sequence[int], logits: Array, banned: set[int]) -> Held | None:
    """Choose the next id among those that aren't banned; None if none is left."""
    changes, watch = task.watch(1)
    scores = logits
    if banned:
        scores = logits.copy()
        scores[:, sorted(banned)] = FORBIDDEN
        if watch is not None:
            watch([0], "banned_strings", logits, scores)
        if not (scores > FORBIDDEN).any():
            return None
    try:
        scores = pipeline.side_by_side([chain], [(0, text)], scores, watch)
    except ValueError:
        if banned:  # without the bans there was something
            return None
        raise
    token = int(task.choose(scores, [0], 1)[0])
    return None if token in banned else Held(token, logits[0].copy(), scores[0].copy(), changes[0])


def told(task: Task, row: int, length: int, one: Held, reason: Any) -> Token:
    """Return an id as the caller receives it."""
    return task.token(row, length, one.token, one.logits, log_softmax(one.logits), one.scores, one.changes, reason)


def check(options: Any) -> None:
    """Check that the banned phrases can be found in new ids."""
    phrases = options.banned_strings is None or hasattr(options.banned_strings, "begins")
    require(phrases, "banned_strings must be phrases that know where they begin", options.banned_strings)


METHODS = (
    Method(
        "banned strings",
        options=(BANNED,),
        run=rewinding,
        streams=True,
        with_profiles=True,
        excludes=(
            "num_beams",
            "best_of",
            "penalty_alpha",
            "dola_layers",
            "exhaustive",
            "prompt_lookup_num_tokens",
            "spec_type",
            "assistant_early_exit",
            "assistant_model",
            # These have a past, which can't be taken back.
            "guidance_scale",
            "mirostat",
            "adaptive_target",
        ),
        check=check,
        documentation=(
            Documentation(
                "banned_strings",
                what=(
                    "When a banned phrase has been generated, by whatever tokens, generation goes back to before it "
                    "and continues differently."
                ),
                formula=r"\arg\max_i p_i, \quad i \notin B_t",
                source="KoboldCpp and ExLlamaV2; sam-paech's antislop-sampler",
                when="Against worn-out phrases. Text is held back while it could become one.",
                example={"banned_strings": ["little", "lived in"]},
            ),
        ),
        trials={"banned strings": {"banned_strings": Banned(lambda token: b"%d " % token, (b"12 13 ", b"7 7 "))}},
    ),
)
