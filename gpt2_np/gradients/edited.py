"""The edits of a forward pass, remembered on its way, so that its gradients can pass them backwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import numpy as np

from ..model.taps import Both, Tap, no_tap

Array = np.ndarray


class Reversible(Tap, Protocol):
    """A tap that gradients can pass: `model.edits.Edits`, or what gives each row its own (`internals.variants`)."""

    def backward(self, name: str, x: Array, gradient: Array) -> Array:
        """The gradient of the value ``x`` that entered a point, given that of what left it."""
        ...

    def check_derivatives(self) -> None:
        """``ValueError`` names the first edit that gradients can't pass."""
        ...


class Edited:
    """A tap that applies a model's own tap and keeps, at every point that is edited, the value that came in.

    `backward` is the tap of the backward pass that belongs to it. ``ValueError``, before anything runs, for an edit
    that gradients can't pass.
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
        """The value that an edited point was given; None where nothing is edited."""
        return self.entered[name][0] if name in self.entered else None

    def backward(self) -> Backward:
        """The tap of the backward pass: gradients pass the same edits, the last one first."""
        return Backward(self)


class Backward:
    """A tap of a backward pass that takes the gradient of what left an edit to that of what entered it."""

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
    """The single taps of which one is made, in their order."""
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
