"""The heads of GPT-2 small that do the indirect-object task, as published, and what each class of them is known by.

Wang et al. 2022, "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small", figure 2:
26 heads in 7 classes. What a class does is measured on pairs of `tasks.indirect_object` for every head of any model, so
that the published heads can be checked where the weights are, and heads of the same kinds be looked for elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..display import described
from ..session.model import Model
from .kept_parts import silenced
from .tasks import Batch

Array = np.ndarray
Head = tuple[int, int]  # layer, head

GPT2_SMALL: Mapping[str, tuple[Head, ...]] = {
    "name mover": ((9, 6), (9, 9), (10, 0)),
    "negative name mover": ((10, 7), (11, 10)),
    "S-inhibition": ((7, 3), (7, 9), (8, 6), (8, 10)),
    "induction": ((5, 5), (5, 8), (5, 9), (6, 9)),
    "duplicate token": ((0, 1), (0, 10), (3, 0)),
    "previous token": ((2, 2), (4, 11)),
    "backup name mover": ((9, 0), (9, 7), (10, 1), (10, 2), (10, 6), (10, 10), (11, 2), (11, 9)),
}


class Places(NamedTuple):
    """The positions in clean prompts, (n,) each: the indirect object, the subject's two mentions, the end."""

    io: Array
    s1: Array
    s2: Array
    end: Array

    def __repr__(self) -> str:
        return described(self)


def places(batch: Batch) -> Places:
    """The places of an indirect-object batch. ``ValueError`` where the names don't stand once and twice."""
    rows, found = np.arange(len(batch.clean)), []
    for name, ids, times in (("the answer", batch.answers, 1), ("the other name", batch.wrong, 2)):
        there = batch.clean == ids[:, None]
        if (there.sum(axis=1) != times).any():
            raise ValueError(f"{name} must stand {times} times in each prompt; is this an indirect-object task?")
        found.append(there)
    io, s1 = found[0].argmax(axis=1), found[1].argmax(axis=1)
    s2 = batch.clean.shape[1] - 1 - found[1][:, ::-1].argmax(axis=1)
    return Places(io, s1, s2, np.full(len(rows), batch.clean.shape[1] - 1))


def class_scores(model: Model, pairs: Sequence[Batch], name_movers: Sequence[Head] = ()) -> dict[str, Array]:
    """Return the measure that identifies each class, for every head, averaged over clean prompts: class → (L, H).

    "name mover" and "negative name mover": what a head adds directly to the answer's logit over the other name's (its
    negative for the second). "S-inhibition": attention from the end to the second mention. "induction": from the
    second mention to what follows the first. "duplicate token": from the second mention to the first. "previous
    token": from what follows the first mention to it. "backup name mover": what a head adds directly once the
    `name_movers` are silent, less what it added before.
    """
    total: dict[str, Array] = dict.fromkeys(GPT2_SMALL, np.zeros((model.config.n_layer, model.config.n_head)))
    without = _silent(model, name_movers)
    for batch in pairs:
        at, rows = places(batch), np.arange(len(batch.clean))
        _, cache = model.run_with_cache(batch.clean, "*.attn.pattern")
        pattern = cache.stack_activation("pattern")  # (L, n, H, T, T)

        def looks(query: Array, key: Array, pattern: Array = pattern, rows: Array = rows) -> Array:
            return pattern[:, rows, :, query, key].sum(axis=0)

        added, then = added_directly(model, batch), added_directly(without, batch)
        scores = {
            "name mover": added,
            "negative name mover": -added,
            "S-inhibition": looks(at.end, at.s2),
            "induction": looks(at.s2, at.s1 + 1),
            "duplicate token": looks(at.s2, at.s1),
            "previous token": looks(at.s1 + 1, at.s1),
            "backup name mover": then - added,
        }
        total = {name: total[name] + scores[name] for name in total}
    count = sum(len(batch.clean) for batch in pairs)
    return {name: values / count for name, values in total.items()}


def added_directly(model: Model, batch: Batch) -> Array:
    """Return what each head adds directly to the last logit of the answer minus the other's: the sum over rows, (L, H).

    Direct logit attribution, as in `direct`, of many prompts.
    """
    config = model.config
    _, cache = model.run_with_cache(batch.clean, ["*.attn.z", "ln_final.scale", "*.resid_pre", "*.resid_post"])
    heads, _ = cache.stack_head_results(pos_slice=slice(-1, None))
    each = cache.logit_attrs(heads, batch.answers, batch.wrong, pos_slice=slice(-1, None))
    return each[..., 0].sum(axis=1, dtype=np.float64).reshape(config.n_layer, config.n_head)


def ranks(scores: Mapping[str, Array], known: Mapping[str, Sequence[Head]] = GPT2_SMALL) -> dict[str, dict[Head, int]]:
    """The rank of each known head by its own class's score among all heads, 1 the highest: class → head → rank.

    ``ValueError`` for a head that the model doesn't have.
    """
    found: dict[str, dict[Head, int]] = {}
    for name, heads in known.items():
        values = scores[name]
        for layer, head in heads:
            if not (layer < values.shape[0] and head < values.shape[1]):
                raise ValueError(f"the model has no head {layer}.{head}: the known heads are GPT-2 small's")
        found[name] = {head: int((values > values[head]).sum()) + 1 for head in heads}
    return found


def _silent(model: Model, heads: Sequence[Head]) -> Model:
    return model.with_edits(silenced(model, heads, [], {})) if heads else model
