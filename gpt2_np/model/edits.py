"""Edits: activations that are replaced while the model runs, wholly or in part, in one run or while generating."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import display
from ..display import Readable
from .config import Config
from .taps import points, select, sizes

Array = np.ndarray
Change = Callable[[Array], Array] | Array
Positions = int | Sequence[int] | range | slice | None


@dataclass(frozen=True)
class Part:
    """A change of a part of an activation: at some positions, in some heads; the rest stays as it was.

    ``change`` is a function of the whole activation, or a whole array (such as a clean run's) of which only this part
    is used. ``positions`` counts from the start of the text, also while generating: an int, a list of ints, a range or
    a slice. ``heads`` is an int or a list.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.model.edits import Part
        >>> silent = Part(lambda z: 0 * z, positions=[1, 2], heads=3)
        >>> logits, cache = model.run_with_edits("The king and the", {"blocks.0.attn.z": silent}, "blocks.0.attn.z")
        >>> cache["blocks.0.attn.z"][0, 1, 3].any(), cache["blocks.0.attn.z"][0, 0, 3].any()
        (np.False_, np.True_)
    """

    change: Change
    positions: Positions = None
    heads: int | Sequence[int] | None = None

    def mask(self, letters: Sequence[str], positions: Array, heads: int) -> Array:
        """Return which entries belong to it, True where it changes, broadcastable against an activation."""
        B, T = positions.shape
        mask = np.ones([1] * len(letters), bool)
        if self.positions is not None:
            chosen = _contains(positions, self.positions)
            mask = mask & chosen.reshape([B if one == "B" else T if one == "T" else 1 for one in letters])
        if self.heads is not None:
            chosen = np.isin(np.arange(heads), self.heads)
            mask = mask & chosen.reshape([heads if one == "H" else 1 for one in letters])
        return mask


def _contains(positions: Array, wanted: int | Sequence[int] | range | slice) -> Array:
    if isinstance(wanted, slice):
        start, stop, step = wanted.start or 0, wanted.stop, wanted.step or 1
        inside = (positions >= start) & ((positions - start) % step == 0)
        return inside if stop is None else inside & (positions < stop)
    return np.isin(positions, np.asarray(wanted))


@dataclass(frozen=True, repr=False)
class Edit(Readable):
    """A change together with its derivative, so that gradients pass it (`gradients`).

    ``derivative(x, gradient)`` gets the value that entered the change and the gradient of what left it, and returns
    the gradient of ``x``: a vector-Jacobian product, of the same shape. For ``change = lambda x: 2 * x`` it is
    ``lambda x, gradient: 2 * gradient``; ``lambda x, gradient: gradient`` passes gradients straight through. Where the
    change is a `Part`, the derivative sees the gradient of the part alone (0 elsewhere).
    """

    change: Change | Part
    derivative: Callable[[Array, Array], Array]


AnyEdit = Change | Part | Edit


def part_of(edit: AnyEdit) -> Part:
    """Return any edit as a `Part`; it covers everything if the edit names no part."""
    change = edit.change if isinstance(edit, Edit) else edit
    return change if isinstance(change, Part) else Part(change)


class Edits:
    """A tap that replaces the named activations: by a function's result, or by an array of the same shape."""

    def __init__(self, changes: Mapping[str, AnyEdit], config: Config, positions: Array | None = None) -> None:
        self.changes, self.config, self.positions = dict(changes), config, positions
        self.shapes = points(config)

    def at(self, positions: Array) -> Edits:
        return Edits(self.changes, self.config, positions)

    def wants(self, name: str) -> bool:
        return name in self.changes

    def __call__(self, name: str, x: Array) -> Array:
        if name not in self.changes:
            return x
        part, letters, positions = self._where(name, x.shape)
        if callable(part.change):
            changed = np.asarray(part.change(np.array(x)))
            if changed.shape != x.shape:
                raise ValueError(f"an edit of {name} must have its shape {x.shape}, got {changed.shape}")
            mask = part.mask(letters, positions, self.config.n_head)
        else:
            changed, covered = _from_array(name, np.asarray(part.change), x.shape, letters, positions)
            mask = part.mask(letters, positions, self.config.n_head) & covered
        return np.where(mask, changed, x).astype(x.dtype, copy=False)

    def __repr__(self) -> str:
        return f"Edits({display.brief(list(self.changes))})"

    def _where(self, name: str, shape: tuple[int, ...]) -> tuple[Part, list[str], Array]:
        """Return a point's edit, the letters of its shape, and the (B, T) positions of an activation of this shape."""
        letters = self.shapes[name].split()
        B, T = shape[0], shape[letters.index("T")]
        positions = np.broadcast_to(np.arange(T), (B, T)) if self.positions is None else self.positions[:, -T:]
        return part_of(self.changes[name]), letters, positions

    def backward(self, name: str, x: Array, gradient: Array) -> Array:
        """Return the gradient of the value ``x`` that entered a point, given the gradient of the value that left it.

        A part that an array replaced gets 0; a part that a function changed gets what the `Edit`'s derivative returns;
        the rest is passed through. ``ValueError`` if a derivative returns another shape.
        """
        if name not in self.changes:
            return gradient
        edit, (part, letters, positions) = self.changes[name], self._where(name, x.shape)
        mask = part.mask(letters, positions, self.config.n_head)
        if not callable(part.change):
            mask = mask & _from_array(name, np.asarray(part.change), x.shape, letters, positions)[1]
        passed = np.where(mask, 0, gradient).astype(gradient.dtype, copy=False)
        if isinstance(edit, Edit):
            through = np.asarray(edit.derivative(np.array(x), np.where(mask, gradient, 0).astype(gradient.dtype)))
            if through.shape != x.shape:
                raise ValueError(
                    f"the derivative of an edit of {name} must have its shape {x.shape}, got {through.shape}"
                )
            passed += through.astype(gradient.dtype, copy=False)
        return passed

    def check_derivatives(self) -> None:
        """Raise ``ValueError``, which names the first edit that gradients can't pass: a function without a
        derivative.
        """
        for name, edit in self.changes.items():
            if callable(part_of(edit).change) and not isinstance(edit, Edit):
                raise ValueError(
                    f"the edit of {name} is a function, and gradients can't pass it: give Edit(function, derivative), "
                    "or an array, which stops them"
                )


def _from_array(
    name: str, array: Array, shape: tuple[int, ...], letters: list[str], positions: Array
) -> tuple[Array, Array]:
    """Return an array's entries at `positions`, given that it starts at a text's first one, and which of them it
    covers.
    """
    axis = letters.index("T")
    expected = (*shape[:axis], *array.shape[axis : axis + 1], *shape[axis + 1 :])
    if array.ndim != len(shape) or array.shape not in (expected, (1, *expected[1:])):
        raise ValueError(f"an edit of {name} must have its shape {shape}, got {array.shape}")
    covered = positions < array.shape[axis]
    rows = np.arange(array.shape[0])[:, None]
    said = np.moveaxis(array, axis, 1)[rows, np.where(covered, positions, 0)]
    B, T = positions.shape
    where = covered.reshape([B if one == "B" else T if one == "T" else 1 for one in letters])
    return np.moveaxis(said, 1, axis), where


def edits(changes: Mapping[str, AnyEdit], config: Config, fed: tuple[int, int] | None = None) -> Edits:
    """Build an `Edits` tap from names or patterns.

    ``ValueError``, before anything runs, for an unknown name (the nearest is suggested), heads or positions that the
    model doesn't have, heads of an activation that has none, and, where the (B, T) to be fed is known, arrays of a
    wrong shape.
    """
    chosen = {point: change for name, change in changes.items() for point in select(name, config)}
    for name, change in chosen.items():
        check(name, part_of(change), config, fed)
    return Edits(chosen, config)


def check(name: str, part: Part, config: Config, fed: tuple[int, int] | None) -> None:
    """Raise ``ValueError`` if a change can't be made at a point; see `edits`."""
    letters = points(config)[name].split()
    if part.heads is not None:
        if "H" not in letters:
            raise ValueError(f"{name} has no heads, got heads={part.heads!r}")
        _check_range("heads", part.heads, config.n_head)
    if part.positions is not None and not isinstance(part.positions, slice):
        # A range may reach beyond the positions fed so far.
        ends = fed is not None and not isinstance(part.positions, range)
        _check_range("positions", part.positions, fed[1] if fed and ends else config.n_positions)
    if callable(part.change) or fed is None:
        return
    B, T = fed
    shape = tuple((sizes(config) | {"B": B, "T": T, "S": T})[letter] for letter in letters)
    got = np.shape(part.change)
    if got not in (shape, (1, *shape[1:])):
        raise ValueError(f"an edit of {name} must have its shape {shape}, got {got}")


def _check_range(what: str, chosen: int | Sequence[int] | range, limit: int) -> None:
    numbers = np.asarray(chosen)
    if numbers.size and not (np.issubdtype(numbers.dtype, np.integer) and 0 <= numbers.min() <= numbers.max() < limit):
        raise ValueError(f"{what} must be between 0 and {limit - 1}, got {chosen!r}")
