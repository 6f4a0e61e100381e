"""Splicing a dictionary into a run: its reconstruction replaces the activation, and features can be changed.

With the error term (Marks et al. 2024, "Sparse Feature Circuits", section 2) the reconstruction error is added again,
so that the run is the model's own except for the changed features.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ...display import Readable
from ...model.config import Config as ModelConfig
from ...model.edits import AnyEdit, Edit, Part, Positions
from ...model.taps import Tap, both
from ...session.model import AnyModel
from . import places
from .coding import Coder

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Changes(Readable):
    """Features f[numbers] that become f · factor + shift; three arrays of one length."""

    numbers: Array
    factor: Array
    shift: Array

    def __call__(self, features: Array) -> Array:
        """Return the changed features, given (…, n), the features with these `numbers`."""
        return features * self.factor.astype(features.dtype) + self.shift.astype(features.dtype)


def changes(
    features: int,
    *,
    ablate: Iterable[int] = (),
    scale: Mapping[int, float] | None = None,
    add: Mapping[int, float] | None = None,
    value: Mapping[int, float] | None = None,
) -> Changes:
    """Build the `Changes` that these arguments describe, in a dictionary with this number of features.

    `ablate` are features that are silenced; `scale` multiplies some, `add` adds to some wherever they are (steering),
    `value` sets some. ``ValueError`` for a feature that isn't there, is named twice, or gets no finite number.
    """
    table: dict[int, tuple[float, float]] = {}
    asked = [(number, 0.0, 0.0) for number in ablate]
    asked += [(number, factor, 0.0) for number, factor in (scale or {}).items()]
    asked += [(number, 1.0, shift) for number, shift in (add or {}).items()]
    asked += [(number, 0.0, shift) for number, shift in (value or {}).items()]
    for number, factor, shift in asked:
        check_feature(number, features)
        if number in table:
            raise ValueError(f"a feature can be changed in one way, got {number} twice")
        if not np.isfinite([factor, shift]).all():
            raise ValueError(f"what a feature is changed by must be finite, got {factor}, {shift} for {number}")
        table[int(number)] = float(factor), float(shift)
    factors, shifts = (np.array([pair[one] for pair in table.values()], np.float64) for one in (0, 1))
    return Changes(np.array(list(table), np.int64), factors, shifts)


def check_feature(number: int, features: int) -> None:
    """Raise ``ValueError`` for a feature that a dictionary doesn't have."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 0 <= number < features:
        raise ValueError(f"a feature must be a whole number between 0 and {features - 1}, got {number!r}")


@dataclass(frozen=True, eq=False, repr=False)
class Splice(Readable):
    """The replacement of an activation: the dictionary's reconstruction, with `changes`, with or without the error
    term.
    """

    dictionary: Coder
    error: bool
    changes: Changes

    def __call__(self, read: Array, x: Array) -> Array:
        """The new activation at the place that is written, x being the old one and `read` what the dictionary reads."""
        vectors = places.vectors(self.dictionary, read)
        if self.error:
            return places.put(self.dictionary, x, places.picked(self.dictionary, x) + self.moved(vectors))
        features, y = self.dictionary.both(vectors)
        if len(self.changes.numbers):
            y = y + self.moved(vectors, features[..., self.changes.numbers])
        return places.put(self.dictionary, x, y)

    def moved(self, vectors: Array, features: Array | None = None) -> Array:
        """Return what the changes of features add to the activation: (B, T, O)."""
        numbers = self.changes.numbers
        if features is None:
            features = self.dictionary.encode_some(vectors, numbers)
        moved = (self.changes(features) - features) @ self.dictionary.directions(numbers)
        return self.dictionary.scale(vectors).gradient(moved)

    def gradient(self, read: Array, of_out: Array) -> Array:
        """∂L/∂(`read`, as vectors) from the gradient of the new activation: (B, T, D).

        As in SAELens the error term counts as given, so that gradients pass the features alone.
        """
        factor = np.ones(self.dictionary.config.d_sae, read.dtype)
        factor[self.changes.numbers] = self.changes.factor
        vectors = places.vectors(self.dictionary, read)
        some = None if len(self.changes.numbers) == 0 else factor
        found = self.dictionary.gradient(vectors, places.picked(self.dictionary, of_out), factor=some)
        return places.gradient(self.dictionary, found)


def splice(
    dictionary: Coder,
    *,
    error: bool = False,
    positions: Positions = None,
    ablate: Iterable[int] = (),
    scale: Mapping[int, float] | None = None,
    add: Mapping[int, float] | None = None,
    value: Mapping[int, float] | None = None,
) -> Edit:
    """Return the edit that puts an autoencoder into a model: ``model.with_edits({sae.hook_name: splice(sae)})``.

    `error` adds what the dictionary misses again; `positions` limits it to a part of the text; the rest says what
    becomes of features (`changes`). Gradients pass it. ``ValueError`` for a transcoder, which reads and writes two
    places: `spliced` puts it in.
    """
    if dictionary.config.is_transcoder:
        raise ValueError(
            f"a transcoder reads {dictionary.hook_name} and writes {dictionary.hook_name_out}, which no edit of one "
            "activation does: dictionaries.spliced(model, transcoder) puts it in"
        )
    asked = changes(dictionary.config.d_sae, ablate=ablate, scale=scale, add=add, value=value)
    one = Splice(dictionary, error, asked)

    def derivative(x: Array, of_out: Array) -> Array:
        return places.put(dictionary, of_out, one.gradient(x, of_out))

    def change(x: Array) -> Array:
        return one(x, x)

    return Edit(change if positions is None else Part(change, positions), derivative)


def spliced(
    model: AnyModel,
    dictionary: Coder,
    *,
    error: bool = False,
    positions: Positions = None,
    ablate: Iterable[int] = (),
    scale: Mapping[int, float] | None = None,
    add: Mapping[int, float] | None = None,
    value: Mapping[int, float] | None = None,
) -> AnyModel:
    """The same model with a dictionary in it, an autoencoder or a transcoder, in whatever it does; see `splice`.

    ``spliced(model, sae, error=True, add={1234: 8.0}).generate("Once upon a time")`` steers by feature 1234. Several
    dictionaries go in one after another. ``ValueError`` where the model has no place for it.
    """
    places.check(dictionary, model.config)
    words = {"ablate": ablate, "scale": scale, "add": add, "value": value}
    if not dictionary.config.is_transcoder:
        edit: AnyEdit = splice(dictionary, error=error, positions=positions, **words)  # type: ignore[arg-type]
        return model.with_edits({places.reads(dictionary): edit})
    asked = changes(dictionary.config.d_sae, **words)  # type: ignore[arg-type]
    edited = copy.copy(model)
    edited.tap = both(model.tap, Transcoded(Splice(dictionary, error, asked), model.config, positions))
    return edited


class Transcoded(Readable):
    """A tap that reads one activation and writes a transcoder's output in place of another; gradients pass through it.

    What it read is kept for each thread until the place that it writes has come.
    """

    def __init__(
        self, splice: Splice, config: ModelConfig, wanted: Positions = None, positions: Array | None = None
    ) -> None:
        self.splice, self.config, self.wanted, self.positions = splice, config, wanted, positions
        self.source, self.target = places.reads(splice.dictionary), places.writes(splice.dictionary)
        self.kept = threading.local()

    def at(self, positions: Array) -> Tap:
        """The same, told where in their texts the fed positions are."""
        return Transcoded(self.splice, self.config, self.wanted, positions)

    def wants(self, name: str) -> bool:
        return name in (self.source, self.target)

    def __call__(self, name: str, x: Array) -> Array:
        if name == self.source:
            self.kept.read = x
        if name != self.target:
            return x
        return np.where(self.mask(x), self.splice(self.kept.read, x), x).astype(x.dtype, copy=False)

    def mask(self, x: Array) -> Array:
        """Which positions of a (B, T, O) activation it writes."""
        B, T = x.shape[:2]
        positions = np.broadcast_to(np.arange(T), (B, T)) if self.positions is None else self.positions[:, -T:]
        return Part(x, self.wanted).mask(["B", "T", "O"], positions, self.config.n_head)

    def backward(self, name: str, x: Array, gradient: Array) -> Array:
        """The gradient of what entered a point from that of what left it: it leads from the written one to the read."""
        if name == self.target:
            mask = self.mask(gradient)
            self.kept.gradient = np.where(mask, gradient, 0).astype(gradient.dtype)
            # With the error term the old activation counts as given, as in SAELens.
            return np.where(mask, 0, gradient).astype(gradient.dtype)
        if name == self.source:
            return gradient + self.splice.gradient(x, self.kept.gradient).reshape(x.shape)
        return gradient

    def check_derivatives(self) -> None:
        """It has one."""
