"""Log-probabilities of many continuations at once: shared prefixes are read once, the rest in batches."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..model.arrays import Array
from ..model.cache import position_bytes
from ..model.config import Config
from ..model.ops import log_normalizer
from ..session.implementation import AnyCache
from ..session.model import Model
from ..text.continuations import common

Ids = tuple[int, ...]
Answer = tuple[float, bool]  # the log-probability of a continuation (nats), and whether greedy decoding would write it
CERTAIN: Answer = (0.0, True)  # of a continuation without ids

TOKENS = 1024  # fed at once, padding included: enough for the matrix products to run at full speed
KEYS = 1 << 29  # bytes of keys and values that the rows of a batch may take
LOGITS = 1 << 28  # bytes of logits of a batch
SMALL_BATCH = 256  # tokens of a batch so small that its padding doesn't matter
PADDING = 1 / 8  # of a batch's tokens, at most
SHARED = 32  # fewest shared ids that are worth reading separately


@dataclass(frozen=True)
class Limits:
    """What a batch may have: `rows`, `tokens` fed in all, `scored` positions with logits, `kept` positions of keys."""

    rows: int
    tokens: int
    scored: int
    kept: int
    context: int

    @classmethod
    def of(cls, config: Config, rows: int | None = None, tokens: int = TOKENS, context: int | None = None) -> Limits:
        """Return the limits for a model: any number of rows, and its whole context, by default."""
        return cls(
            rows or tokens,
            tokens,
            max(config.n_positions, LOGITS // (4 * config.vocab_size)),
            max(config.n_positions, KEYS // position_bytes(config)),
            context or config.n_positions,
        )


@dataclass(frozen=True)
class Unit:
    """What is fed behind one beginning: `tails`, and for each the (number, ids) of the continuations that it answers.

    A context's last id belongs to the tail, since the first id of a continuation is predicted after it.
    """

    before: Ids
    tails: list[Ids]
    asked: list[list[tuple[int, Ids]]]

    @property
    def longest(self) -> int:
        """The length of the longest tail."""
        return max(map(len, self.tails))


def log_likelihoods(
    model: Model,
    requests: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    context: int | None = None,
    rows: int | None = None,
    tokens: int = TOKENS,
    answered: Callable[[int, Answer], object] = lambda number, answer: None,
) -> list[Answer]:
    """For each (context, continuation) the summed log-probability (nats), and whether greedy decoding would write it.

    A context needs at least one id; what doesn't fit the model together with its continuation is cut off at its start.
    Contexts are read once for all their continuations, beginnings that many contexts share once for all of them, and
    equal requests once. `context` is a shorter one than the model's; `rows` limits those of a batch, `tokens` what is
    fed at once. `answered` receives each request's number and answer as soon as it is known. ``ValueError`` for an
    empty context, or a continuation that is longer than the model's context.
    """
    found = [CERTAIN] * len(requests)
    limits = Limits.of(model.config, rows, tokens, context)
    for number, (_, ids) in enumerate(requests):
        if not len(ids):
            answered(number, CERTAIN)
    for shared, units in clusters(grouped(requests, limits), limits):
        for number, answer in read(model, shared, units, limits):
            found[number] = answer
            answered(number, answer)
    return found


def grouped(requests: Sequence[tuple[Sequence[int], Sequence[int]]], limits: Limits) -> list[Unit]:
    """Group the requests that continue the same ids, as many as a batch may have; each sequence of ids only once."""
    context = limits.context
    found: dict[Ids, dict[Ids, list[tuple[int, Ids]]]] = {}
    for number, (before, ids) in enumerate(requests):
        if not len(before):
            raise ValueError("a context must have at least one id, got none")
        if len(ids) > context:
            raise ValueError(f"a continuation must have at most {context} tokens, the model's context, got {len(ids)}")
        if not len(ids):
            continue
        whole = tuple(map(int, (*before, *ids)))[-(context + 1) :]
        first = len(whole) - len(ids)
        asked = found.setdefault(whole[: first - 1], {}).setdefault(whole[first - 1 : -1], [])
        asked.append((number, whole[first:]))
    return [part for before, tails in found.items() for part in parted(before, merged(tails), limits)]


def merged(tails: dict[Ids, list[tuple[int, Ids]]]) -> list[tuple[Ids, list[tuple[int, Ids]]]]:
    """Return the tails that are no prefix of another, each with its requests and those of its prefixes."""
    found: list[tuple[Ids, list[tuple[int, Ids]]]] = []
    for tail in sorted(tails, reverse=True):  # what begins with a tail stands right before it
        if found and found[-1][0][: len(tail)] == tail:
            found[-1][1].extend(tails[tail])
        else:
            found.append((tail, list(tails[tail])))
    return found


def parted(before: Ids, tails: list[tuple[Ids, list[tuple[int, Ids]]]], limits: Limits) -> Iterator[Unit]:
    """Return one unit, or several if one batch can't hold all tails; tails of similar lengths stay together."""
    unit = Unit(before, [], [])
    for tail, asked in sorted(tails, key=lambda pair: -len(pair[0])):
        if unit.tails and not fits([Unit(before, [*unit.tails, tail], [])], 0, limits):
            yield unit
            unit = Unit(before, [], [])
        unit.tails.append(tail)
        unit.asked.append(asked)
    yield unit


def clusters(units: Sequence[Unit], limits: Limits) -> list[tuple[int, list[Unit]]]:
    """Units whose beginnings have ids in common, with how many; last those that have nothing worth reading apart (0).

    Sorted, units that share much stand side by side. A unit joins those before it unless the next one shares more than
    twice as much with it as they do.
    """
    ordered = sorted(units, key=lambda unit: unit.before)
    next_to = [common([one.before, other.before]) for one, other in itertools.pairwise(ordered)]
    found: list[tuple[int, list[Unit]]] = []
    for number, unit in enumerate(ordered):
        if found:
            shared, some = found[-1]
            both = min(shared, next_to[number - 1])
            after = next_to[number] if number < len(next_to) else 0
            if both >= SHARED and after <= 2 * both:
                some.append(unit)
                found[-1] = (both, some)
                continue
        found.append((len(unit.before), [unit]))
    worth = limits.tokens // 2  # a batch of their own has its price
    apart = [(shared, some) for shared, some in found if shared * (len(some) - 1) >= max(worth, 1)]
    loose = [unit for shared, some in found if shared * (len(some) - 1) < max(worth, 1) for unit in some]
    return [*apart, (0, loose)] if loose else apart


def fits(units: Sequence[Unit], shared: int, limits: Limits, room: int = 0) -> bool:
    """Tell whether units fit in one batch, after `shared` ids that were read already; a row has at least `room`."""
    rows = sum(len(unit.tails) for unit in units)
    before, longest = max(len(unit.before) for unit in units), max(unit.longest for unit in units)
    return (
        rows <= limits.rows
        and rows * longest + len(units) * (before - shared) <= limits.tokens
        and rows * longest <= limits.scored
        and rows * max(before + longest, room) <= limits.kept
        and before + longest <= limits.context
    )


def dense(units: Sequence[Unit], shared: int) -> bool:
    """Tell whether little of a batch is padding, or the batch is small."""
    rows = sum(len(unit.tails) for unit in units)
    longest = max(unit.longest for unit in units)
    fed = len(units) * (max(len(unit.before) for unit in units) - shared) + rows * longest
    real = sum(len(unit.before) - shared + sum(map(len, unit.tails)) for unit in units)
    return fed <= SMALL_BATCH or (fed - real) <= PADDING * fed


def batches(units: Sequence[Unit], shared: int, limits: Limits, room: int) -> Iterator[list[Unit]]:
    """Units in batches, the longest first with their like, as many together as the limits allow (see `fits`)."""
    some: list[Unit] = []
    for unit in sorted(units, key=lambda unit: (-len(unit.before), -unit.longest)):
        if some and not (fits([*some, unit], shared, limits, room) and dense([*some, unit], shared)):
            yield some
            some = []
        some.append(unit)
    if some:
        yield some


def read(model: Model, shared: int, units: Sequence[Unit], limits: Limits) -> Iterator[tuple[int, Answer]]:
    """Every request's number and answer; the first `shared` ids, which all units begin with, are read once."""
    start, room = None, 0
    if shared:  # every batch copies these keys, so that its rows have room for the longest of all
        room = min(max(len(unit.before) for unit in units) + max(unit.longest for unit in units), limits.context)
        start = model.new_cache(1, room)
        model.forward(np.array([units[0].before[:shared]]), cache=start, last_only=True)
    for some in batches(units, shared, limits, room):
        before, longest = max(len(unit.before) for unit in some), max(unit.longest for unit in some)
        if start is None:
            cache = model.new_cache(len(some), before + longest)
        else:
            cache = copy.deepcopy(start)
            cache.reorder([0] * len(some))
        feed(model, cache, [unit.before[shared:] for unit in some])
        cache.reorder([row for row, unit in enumerate(some) for _ in unit.tails])
        tails = padded([tail for unit in some for tail in unit.tails])
        logits = model.forward(tails, cache=cache)
        model.check_logits(logits, tails, cache=cache)
        for scores, asked in zip(logits, [one for unit in some for one in unit.asked], strict=True):
            yield from answers(scores, asked)


def feed(model: Model, cache: AnyCache, rows: Sequence[Ids]) -> None:
    """Read rows of any lengths, which may have no ids at all, into a cache's rows; their logits are of no interest."""
    ids = padded(rows)
    if ids.shape[1]:
        model.forward(ids, cache=cache, last_only=True)
        cache.rewind([ids.shape[1] - len(row) for row in rows])


def padded(rows: Sequence[Ids]) -> Array:
    """Return (rows, longest) int64 ids, padded with zeros after each row's end, where no earlier position looks."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    return ids


def answers(logits: Array, asked: Sequence[tuple[int, Ids]]) -> Iterator[tuple[int, Answer]]:
    """Return the answers to one row's requests, from the (positions, V) logits after each id of its tail."""
    scores = logits[: max(len(ids) for _, ids in asked)]
    best = scores.argmax(axis=-1)
    normalizer = log_normalizer(scores)
    for number, ids in asked:
        picked = scores[np.arange(len(ids)), ids] - normalizer[: len(ids)]
        yield number, (float(picked.sum()), bool((best[: len(ids)] == ids).all()))
