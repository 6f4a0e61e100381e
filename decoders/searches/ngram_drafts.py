"""Drafts without a model, as llama.cpp has them (``docs/speculative.md``): what followed the same n-gram before, looked
up in five ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..base.interface import Array, Token
from ..base.method import Method, Option
from ..base.readable import Readable
from ..base.task import Task
from ..base.value_types import NAME, WHOLE
from .assisted import ELSEWHERE, GROUP, assisted
from .candidates import Candidates
from .ngram_maps import Map, Simple
from .ngram_tables import Cache, Mod, Pool

KINDS = ("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache")


def ngram_drafts(
    task: Task,
    spec_type: str,
    spec_ngram_size_n: int | None,
    spec_ngram_size_m: int | None,
    spec_ngram_min_hits: int,
    draft_min: int | None,
    draft_max: int | None,
) -> Iterator[Token]:
    """Each new id as it is chosen, candidates being what followed the newest ids before.

    The text is the one that the model writes alone, greedy or sampled, for the same seed.
    """
    make = source(spec_type, spec_ngram_size_n, spec_ngram_size_m, spec_ngram_min_hits, draft_min, draft_max)
    least, most = (0, draft_max) if spec_type == "ngram-mod" else (draft_min or 0, draft_max)
    return assisted(task, lambda prompt, V: Bounded(make(prompt.ids), least, most))


def source(
    kind: str, n: int | None, m: int | None, min_hits: int, least: int | None, most: int | None
) -> Callable[[Sequence[int]], Candidates]:
    """Return the function that makes the source of a prompt's drafts. The defaults are llama.cpp's: n 12 and m 48; for
    ngram-mod n 24, and 48 to 64 ids in a draft; for ngram-cache at most 8.
    """
    if kind == "ngram-mod":
        pool = Pool(24 if n is None else n)
        return lambda prompt: Mod(prompt, pool, 48 if least is None else least, 64 if most is None else most)
    if kind == "ngram-cache":
        return lambda prompt: Cache(prompt, 8 if most is None else most)
    size, length = 12 if n is None else n, 48 if m is None else m
    if kind == "ngram-simple":
        return lambda prompt: Simple(prompt, size, length)
    return lambda prompt: Map(prompt, size, length, min_hits, kind == "ngram-map-k4v")


class Bounded(Readable):
    """Another source's drafts: longer ones are cut, shorter ones are none."""

    passes = 0

    def __init__(self, source: Candidates, least: int, most: int | None) -> None:
        self.source, self.least, self.most = source, least, most

    def propose(self, text: Sequence[int], most: int) -> tuple[list[int], list[Array]]:
        found, _ = self.source.propose(text, most if self.most is None else min(most, self.most))
        return ([] if len(found) < self.least else found), []

    def learn(self, proposed: int, accepted: int) -> None:
        self.source.learn(proposed, accepted)


def of_drafts(name: str, help: str, low: int, otherwise: int | None = None) -> Option:
    """An option of these drafts."""
    interval = f"[{low}, inf)"
    return Option(name, WHOLE, interval=interval, otherwise=otherwise, needs=("spec_type",), group=GROUP, help=help)


METHODS = (
    Method(
        "n-gram drafts",
        options=(
            Option(
                "spec_type",
                NAME,
                choices=KINDS,
                group=GROUP,
                help="Draft what followed the newest tokens before, by one of llama.cpp's look-up methods.",
            ),
            of_drafts(
                "spec_ngram_size_n", "The length of the n-gram that is looked up.  [default: 12; ngram-mod: 24]", 1
            ),
            of_drafts("spec_ngram_size_m", "How many of the tokens that followed it are drafted.  [default: 48]", 1),
            of_drafts(
                "spec_ngram_min_hits", "ngram-map-k4v: draft only after an n-gram that was looked up this often.", 1, 1
            ),
            of_drafts("draft_min", "Drafts of fewer tokens are not used.  [default: 0; ngram-mod: 48]", 0),
            of_drafts("draft_max", "The longest draft.  [default: no limit; ngram-mod: 64; ngram-cache: 8]", 1),
        ),
        run=ngram_drafts,
        streams=True,
        with_profiles=True,
        excludes=(*ELSEWHERE, "prompt_lookup_num_tokens", "assistant_model", "assistant_early_exit"),
        trials={
            kind: {"spec_type": kind, "spec_ngram_size_n": 2} | ({"draft_min": 1} if kind == "ngram-mod" else {})
            for kind in KINDS
        },
    ),
)
