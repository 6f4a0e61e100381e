"""Log-probabilities of many continuations at once: shared prefixes are read once, the rest in batches."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..engine import available
from ..model.arrays import Array
from ..model.cache import position_bytes
from ..model.config import Config
from ..model.ops import log_normalizer
from ..model.taps import no_tap
from ..session.implementation import AnyCache
from ..session.model import Model
from ..system.threads import blas_threads, evenly, on_threads
from ..text.continuations import common

Ids = tuple[int, ...]
Answer = tuple[float, bool]  # the log-probability of a continuation (nats), and whether greedy decoding would write it
CERTAIN: Answer = (0.0, True)  # of a continuation without ids

TOKENS = 1024  # fed at once, padding included: enough for the matrix products to run at full speed
KEYS = 1 << 29  # bytes of keys and values that the rows of a batch may take
LOGITS = 1 << 28  # bytes that the logits of a batch would take together
AT_ONCE = 1 << 26  # bytes of logits that are there at a time
CACHED = 1 << 17  # logits whose working copies stay in a core's cache
SMALL_BATCH = 256  # tokens of a batch so small that its padding does not matter
PADDING = 1 / 8  # of a batch's tokens, at most
SHARED = 32  # fewest shared ids that are worth reading separately


@dataclass(frozen=True)
class Limits:
    """The limits of a batch: its `rows`, `tokens` fed in all, `scored` positions with logits, `kept` ones of keys."""

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
    """The texts fed after one common beginning: `tails`, and for each the (number, ids) of the continuations that it
    answers.

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

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.evaluation import log_likelihoods
        >>> before, after = model.to_ids("The king sat on his"), model.to_ids(" throne")
        >>> ((logprob, greedy),) = log_likelihoods(model, [(before, after)])
        >>> logprob < 0
        True
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
        yield from answers(model, cache, tails, [one for unit in some for one in unit.asked])


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


def answers(
    model: Model, cache: AnyCache, tails: Array, asked: Sequence[list[tuple[int, Ids]]]
) -> Iterator[tuple[int, Answer]]:
    """The answers to what is asked of each row, whose (T,) tail is read after what the cache holds.

    Logits of some positions are there at a time; what edits a model may look at all of them, so an edited one reads
    the tails whole.
    """
    rows, positions = tails.shape
    size = max(1, AT_ONCE // (4 * model.config.vocab_size * rows)) if model.tap is no_tap else positions
    lengths = [max(len(ids) for _, ids in some) for some in asked]
    picked = [[np.empty(len(ids)) for _, ids in some] for some in asked]
    normalizer, best = np.zeros(tails.shape), np.zeros(tails.shape, np.int64)
    for start in range(0, positions, size):
        part = slice(start, min(start + size, positions))
        logits = model.forward(tails[:, part], cache=cache)
        model.check_logits(logits, tails[:, part], cache=cache)
        places = [
            row * logits.shape[1] + place
            for row, length in enumerate(lengths)
            for place in range(min(length - start, logits.shape[1]))
        ]
        flat, compiled = logits.reshape(-1, logits.shape[-1]), model.backend == "numba" and available.loads()
        of_part = normalizer_and_best(flat, np.array(places, np.int64), compiled)
        normalizer[:, part], best[:, part] = (one.reshape(rows, -1) for one in of_part)
        for scores, some, values in zip(logits, asked, picked, strict=True):
            for (_, ids), mine in zip(some, values, strict=True):
                here = np.array(ids[part], np.int64)
                mine[start : start + len(here)] = scores[np.arange(len(here)), here]
    for row, (some, values) in enumerate(zip(asked, picked, strict=True)):
        for (number, ids), mine in zip(some, values, strict=True):
            total = (mine - normalizer[row, : len(ids)]).sum()
            yield number, (float(total), bool((best[row, : len(ids)] == ids).all()))


def normalizer_and_best(logits: Array, places: Array, compiled: bool = False) -> tuple[Array, Array]:
    """`log_normalizer` and the likeliest id of some of the (n, V) logits, (n,) each; zeros elsewhere."""
    normalizer, best = np.zeros(len(logits)), np.zeros(len(logits), np.int64)
    if compiled and logits.dtype == np.float32:
        from ..engine.kernels.normalizers import normalizers_and_best

        normalizers_and_best(np.ascontiguousarray(logits), places, normalizer, best)
        return normalizer, best
    few, workers = max(1, CACHED // logits.shape[1]), blas_threads()

    def work(some: slice) -> None:
        for start in range(some.start, some.stop, few):  # which stay in a core's cache
            here = places[start : min(start + few, some.stop)]
            scores = logits[here]
            normalizer[here], best[here] = log_normalizer(scores), scores.argmax(axis=-1)

    on_threads(work, evenly(len(places), max(1, min(len(places), 4 * workers))), workers)
    return normalizer, best
