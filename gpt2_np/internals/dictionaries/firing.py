"""The features that fire on a prompt, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...display import NUMBERS, Texts, boxed, described, heat
from ...session.model import Model
from ..partial_runs import activations
from . import places
from .coding import Coder

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Firing:
    """The features of one prompt: ``ids`` (T,), ``features`` (T, F), 0 where they don't fire.

    ``missed`` (T,) is the share of each token's activation that the dictionary doesn't explain: the squared length of
    the error over that of the activation's difference to ``b_dec``.
    """

    ids: Array
    features: Array
    missed: Array
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        numbers, _ = self.most(12)
        columns, note = self.texts(self.ids), f"{np.count_nonzero(self.features, axis=1).mean():.1f} fire at a token."
        values, rows = self.features[:, numbers].T, [f"feature {one}" for one in numbers]
        fired = heat(values, rows=rows, columns=columns, corner="feature", legend="activation")
        legend = "of the activation, which the dictionary doesn't explain"
        missed = heat(self.missed[None], rows=["missed share"], columns=columns, legend=legend, most=1.0)
        return boxed(fired, missed, title="The features that fire most in the prompt", note=note)

    def at(self, position: int, count: int = 5) -> tuple[Array, Array]:
        """Return the features that fire most at a position, strongest first, and their values: two of at most
        `count`.
        """
        return strongest(self.features[position], count)

    def most(self, count: int = 20) -> tuple[Array, Array]:
        """The features that fire most anywhere but at the first position, whose activation is unlike all others.

        The strongest first, and the most that each reaches.
        """
        some = self.features[1:] if len(self.features) > 1 else self.features
        tops = np.take_along_axis(some, np.abs(some).argmax(axis=0)[None], axis=0)[0]
        return strongest(tops, count)


def strongest(values: Array, count: int) -> tuple[Array, Array]:
    """Return where values (F,) are largest in size, and the values there, without zeros."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    order = order[values[order] != 0]
    return order, values[order]


def fires(model: Model, dictionary: Coder, ids: str | Sequence[int] | Array, *, prepend_bos: bool = False) -> Firing:
    """Return which features fire at which token of one prompt, a text or (T,) ids.

    ``ValueError`` where the model has no place for the dictionary.
    """
    places.check(dictionary, model.config)
    row = model.check_ids(model.to_ids(ids, prepend_bos=prepend_bos))
    if len(row) != 1:
        raise ValueError(f"features are looked at in one prompt, got {len(row)} rows")
    reads, writes = places.reads(dictionary), places.writes(dictionary)
    found = activations(model, row, sorted({reads, writes}))
    vectors = places.vectors(dictionary, found[reads])
    target = vectors if reads == writes else places.targets(dictionary, found[writes])
    features, out = dictionary.both(vectors)
    error, whole = target - out.reshape(target.shape), target - dictionary.tensors["b_dec"]
    missed = (error**2).sum(axis=-1) / np.maximum((whole**2).sum(axis=-1), np.finfo(np.float32).tiny)
    return Firing(row[0], features[0], missed[0], model.texts)
