"""Named activation points: what can be captured or edited while a forward pass runs.

A tap is an argument of `model.forward`, called at every point with the activation's name and value; whatever it
returns takes the value's place. Names and shapes are TransformerLens's, its ``hook_`` prefix being optional:
``blocks.0.attn.hook_pattern`` and ``blocks.0.attn.pattern`` are the same point. Nothing is registered anywhere, so
nothing can leak from one run into the next.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from .config import Config

Array = np.ndarray
Edit = Callable[[Array], Array] | Array

# Every point within a block: its name → its shape.
BLOCK_POINTS = {
    "resid_pre": "B T D",
    "ln1.scale": "B T 1",
    "ln1.normalized": "B T D",
    "attn.q": "B T H K",
    "attn.k": "B T H K",
    "attn.v": "B T H K",
    "attn.attn_scores": "B H T S",
    "attn.pattern": "B H T S",
    "attn.z": "B T H K",
    "attn.result": "B T H D",
    "attn_out": "B T D",
    "resid_mid": "B T D",
    "ln2.scale": "B T 1",
    "ln2.normalized": "B T D",
    "mlp.pre": "B T F",
    "mlp.post": "B T F",
    "mlp_out": "B T D",
    "resid_post": "B T D",
}
# Large and rarely wanted, so it is there when named but not part of "everything" (as in TransformerLens).
ON_REQUEST = ("attn.result",)


def points(config: Config) -> dict[str, str]:
    """Every activation point of a model, in the order of the forward pass: name → shape letters."""
    table = {"embed": "B T D", "pos_embed": "B T D"}
    for layer in range(config.n_layer):
        table |= {f"blocks.{layer}.{name}": shape for name, shape in BLOCK_POINTS.items()}
    return table | {"ln_final.scale": "B T 1", "ln_final.normalized": "B T D"}


def canonical(name: str) -> str:
    """The name without TransformerLens's ``hook_``: ``blocks.0.hook_resid_pre`` → ``blocks.0.resid_pre``."""
    return name.replace("hook_", "")


def select(names: str | Iterable[str] | None, config: Config) -> list[str]:
    """The activation points that names and patterns (``blocks.*.attn.pattern``) mean, in the order of the forward pass.

    None means every point but those in `ON_REQUEST`. A name that matches nothing is a ``ValueError`` that suggests
    the nearest one.
    """
    known = points(config)
    if names is None:
        return [name for name in known if not name.endswith(ON_REQUEST)]
    chosen: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        matched = fnmatch.filter(known, canonical(name))
        if not matched:
            near = difflib.get_close_matches(canonical(name), known, n=1, cutoff=0)[0]
            raise ValueError(f"no activation is named {name!r}; the nearest is {near!r}")
        chosen.update(matched)
    return [name for name in known if name in chosen]


class Tap(Protocol):
    """What `model.forward` calls at every activation point."""

    def wants(self, name: str) -> bool:
        """Whether anything happens at this point; where not, the value may never be computed."""
        ...

    def __call__(self, name: str, x: Array) -> Array:
        """The value itself, or what takes its place."""
        ...


class NoTap:
    """The tap that watches nothing."""

    def wants(self, name: str) -> bool:
        return False

    def __call__(self, name: str, x: Array) -> Array:
        return x


no_tap = NoTap()


class Within:
    """A tap seen from inside one part of the model: ``Within(tap, "blocks.3.")("attn.q", x)``."""

    def __init__(self, tap: Tap, prefix: str) -> None:
        self.tap, self.prefix = tap, prefix

    def wants(self, name: str) -> bool:
        return self.tap.wants(self.prefix + name)

    def __call__(self, name: str, x: Array) -> Array:
        return self.tap(self.prefix + name, x)


def within(tap: Tap, prefix: str) -> Tap:
    """`tap` with every name prefixed; costs nothing where nothing is tapped."""
    return tap if tap is no_tap else Within(tap, prefix)


class Capture:
    """A tap that keeps a copy of the named activations in ``.values``."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.values: dict[str, Array] = {}

    def wants(self, name: str) -> bool:
        return name in self.names

    def __call__(self, name: str, x: Array) -> Array:
        if name in self.names:
            self.values[name] = np.array(x)
        return x


class Edits:
    """A tap that replaces the named activations: by a function's result, or by an array of the same shape."""

    def __init__(self, edits: Mapping[str, Edit]) -> None:
        self.edits = dict(edits)

    def wants(self, name: str) -> bool:
        return name in self.edits

    def __call__(self, name: str, x: Array) -> Array:
        if name not in self.edits:
            return x
        edit = self.edits[name]
        changed = np.asarray(edit(np.array(x)) if callable(edit) else edit)
        if changed.shape != x.shape:
            raise ValueError(f"an edit of {name} must have its shape {x.shape}, got {changed.shape}")
        return changed.astype(x.dtype, copy=False)


class Both:
    """Two taps at once, the first one first: edits seen by a capture, for example."""

    def __init__(self, first: Tap, second: Tap) -> None:
        self.first, self.second = first, second

    def wants(self, name: str) -> bool:
        return self.first.wants(name) or self.second.wants(name)

    def __call__(self, name: str, x: Array) -> Array:
        return self.second(name, self.first(name, x))


def edits(changes: Mapping[str, Edit], config: Config) -> Edits:
    """An `Edits` tap from names or patterns; an unknown name is a ``ValueError`` that suggests the nearest."""
    return Edits({point: change for name, change in changes.items() for point in select(name, config)})


class ActivationCache(Mapping[str, Array]):
    """Captured activations by name, with or without ``hook_``; a missing name suggests the nearest captured one."""

    def __init__(self, values: dict[str, Array], **about: Any) -> None:
        self._values = values
        self.__dict__.update(about)

    def __getitem__(self, name: str) -> Array:
        try:
            return self._values[canonical(name)]
        except KeyError:
            near = difflib.get_close_matches(canonical(name), self._values, n=1, cutoff=0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise KeyError(f"{name!r} was not captured{hint}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
