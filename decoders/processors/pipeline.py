"""Applying a chain of processors, in order, to the model's scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..base.task import Named

if TYPE_CHECKING:
    from ..base.watching import Watch

Array = np.ndarray
INFINITY = float("inf")


def apply(
    chain: Sequence[Named], ids: Sequence[Array], scores: Array, beams: Array | None = None, watch: Watch | None = None
) -> Array:
    """Return the scores after every processor. ``ValueError`` names the option that left no token to choose from, or
    that produced NaN or +inf, which have no order.

    Rows that are the beams of one search, with these scores so far (rows, 1), can replace each other: some rows may be
    left without a token, but not all. `watch` receives each processor's changes.
    """
    possible = None if beams is None else beams[:, 0] > -np.inf
    everyone = alive = np.ones(len(scores), bool)
    emptied = ""
    # remove_invalid_values and SynthID say "never" with the dtype's lowest number, which a temperature may divide.
    lowest = float(np.finfo(scores.dtype).min) * 1e-3
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # ±inf or NaN, as in torch
        for place, (option, processor, forces, _, _, given) in enumerate(chain):
            # A row in which no token is possible any more is skipped, unless this processor forces a token.
            takes, before = everyone if alive is everyone else alive | forces, scores
            if takes is everyone or takes.all():
                scores = processor(ids, scores)
            elif takes.any():
                scores = scores.copy()
                scores[takes] = processor([one for one, taken in zip(ids, takes, strict=True) if taken], scores[takes])
            highest = scores.max(axis=-1)  # NaN where one is
            sound = all(lowest < one < INFINITY for one in highest.tolist())
            if not sound and not repaired(chain[place + 1 :]):
                outside = highest[~(highest < np.inf)]
                if len(outside) and (before.max(axis=-1) < np.inf).all():
                    rule = f"{given or option} must keep scores within {scores.dtype}"
                    raise ValueError(f"{rule}: {outside[0]} after {processor}")
            if watch is not None:
                watch(range(len(scores)), option, before, scores)
            if sound:
                alive, emptied = everyone, ""
                continue
            alive = highest > lowest
            if alive.all() if possible is None else (alive & possible).any():
                emptied = ""
            elif not emptied:
                earlier = dict.fromkeys(named.option for named in chain[:place])
                emptied = f"{option}: {processor}" + (f" (before it: {', '.join(earlier)})" if earlier else "")
    if emptied:
        raise ValueError(f"no token is left to choose from after {emptied}")
    return scores


def repaired(chain: Sequence[Named]) -> bool:
    """Tell whether a later processor replaces NaN and infinities."""
    return any(named.option == "remove_invalid_values" for named in chain)


def side_by_side(
    chains: Sequence[Sequence[Named]],
    texts: Sequence[tuple[int, Sequence[int]]],
    scores: Array,
    watch: Watch | None = None,
) -> Array:
    """Return (rows, V) scores after each row's own chain; `texts` are (number of the chain, ids so far) for each row.

    A chain sees all its rows at once: one that keeps a past of its own (guidance) follows them from step to step.
    """
    if not any(chains):
        return scores
    out = np.empty_like(scores)
    for number, chain in enumerate(chains):
        mine = [place for place, (owner, _) in enumerate(texts) if owner == number]
        if mine:
            told = None if watch is None else partial(in_place, watch, mine)
            out[mine] = apply(chain, [np.array(texts[place][1]) for place in mine], scores[mine], watch=told)
    return out


def in_place(
    watch: Watch, places: Sequence[int], rows: Sequence[int], option: str, before: Array, after: Array
) -> None:
    """Pass some rows' changes to `watch`, by their places among all rows."""
    watch([places[row] for row in rows], option, before, after)
