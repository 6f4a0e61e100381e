"""The edits of a forward pass, recorded on the way, so that the backward pass can propagate gradients through them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import numpy as np

from ..display import Readable
from ..model.taps import Both, Tap, no_tap

Array = np.ndarray


class Reversible(Tap, Protocol):
    """A tap that gradients can pass through: `model.edits.Edits`, or one that edits each row by itself
    (`internals.variants`).
    """

    def backward(self, name: str, x: Array, gradient: Array) -> Array:
        """Return the gradient of the value ``x`` that entered a point, given that of the value that left it."""
        ...

    def check_derivatives(self) -> None:
        """Raise ``ValueError``, which names the first edit that gradients can't pass through."""
        ...


class Edited(Readable):
    """A tap that applies a model's own tap and records, at every edited point, the value that came in.

    `backward` is the matching tap of the backward pass. ``ValueError``, before anything runs, for an edit that
    gradients can't pass through.
    """

    def __init__(self, tap: Tap) -> None:
        self.parts = [_checked(part) for part in _flat(tap)]
        self.entered: dict[str, list[Array]] = {}

    def wants(self, name: str) -> bool:
        return any(part.wants(name) for part in self.parts)

    def __call__(self, name: str, x: Array) -> Array:
        if self.wants(name):
            self.entered[name] = []
            for part in self.parts:
                self.entered[name].append(x)
                x = part(name, x)
        return x

    def made(self, name: str) -> Array | None:
        """Return the value that came into an edited point; None where nothing is edited."""
        return self.entered[name][0] if name in self.entered else None

    def backward(self) -> Backward:
        """Return the tap of the backward pass, in which gradients pass through the same edits in reverse order."""
        return Backward(self)


class Backward(Readable):
    """A tap of a backward pass that maps the gradient of an edit's output to the gradient of its input."""

    def __init__(self, edited: Edited) -> None:
        self.edited = edited

    def wants(self, name: str) -> bool:
        return self.edited.wants(name)

    def __call__(self, name: str, x: Array) -> Array:
        gradient = x
        if self.wants(name):
            for part, entered in zip(reversed(self.edited.parts), reversed(self.edited.entered[name]), strict=True):
                gradient = part.backward(name, entered, gradient)
        return gradient


def _flat(tap: Tap) -> Iterator[Tap]:
    """List the single taps that a tap is made of, in order."""
    if isinstance(tap, Both):
        yield from _flat(tap.first)
        yield from _flat(tap.second)
    elif tap is not no_tap:
        yield tap


def _checked(tap: Tap) -> Reversible:
    if not (hasattr(tap, "backward") and hasattr(tap, "check_derivatives")):
        raise ValueError(f"gradients pass edits alone, got a tap of type {type(tap).__name__}")
    reversible = cast(Reversible, tap)
    reversible.check_derivatives()
    return reversible
