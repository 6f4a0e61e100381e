"""Named activation points: what can be captured or edited while a forward pass runs (`edits` does the editing).

A tap is an argument of `model.forward`, called at every point with the activation's name and value; whatever it
returns takes the value's place. Names and shapes are TransformerLens's, its ``hook_`` prefix being optional:
``blocks.0.attn.hook_pattern`` and ``blocks.0.attn.pattern`` are the same point. Nothing is registered anywhere, so
nothing can leak from one run into the next.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from .config import Config

Array = np.ndarray
Names = str | Iterable[str] | Callable[[str], object] | None  # which activations: see `select`

# Every point within a block: its name → its shape.
BLOCK_POINTS = {
    "resid_pre": "B T D",
    "ln1.in": "B T D",
    "ln1.scale": "B T 1",
    "ln1.normalized": "B T D",
    "ln1.out": "B T D",
    "attn.q": "B T H K",
    "attn.k": "B T H K",
    "attn.v": "B T H K",
    "attn.attn_scores": "B H T S",
    "attn.pattern": "B H T S",
    "attn.z": "B T H K",
    "attn.result": "B T H D",
    "attn_out": "B T D",
    "resid_mid": "B T D",
    "ln2.in": "B T D",
    "ln2.scale": "B T 1",
    "ln2.normalized": "B T D",
    "ln2.out": "B T D",
    "mlp.pre": "B T F",
    "mlp.post": "B T F",
    "mlp_out": "B T D",
    "resid_post": "B T D",
}
# Large and rarely wanted, so it is there when named but not part of "everything" (as in TransformerLens).
ON_REQUEST = ("attn.result",)

# The other names that TransformerLens 4 has for the same places: of a block, and of the model.
BLOCK_ALIASES = {
    "in": "resid_pre",
    "attn.in": "ln1.out",
    "attn.q.out": "attn.q",
    "attn.k.out": "attn.k",
    "attn.v.out": "attn.v",
    "attn.o.in": "attn.z",
    "attn.o.out": "attn_out",
    "attn.out": "attn_out",
    "attn.hidden_states": "attn_out",
    "mlp.in": "ln2.out",
    "mlp.in.in": "ln2.out",
    "mlp.in.out": "mlp.pre",
    "mlp.out.in": "mlp.post",
    "mlp.out.out": "mlp_out",
    "mlp.out": "mlp_out",
    "out": "resid_post",
}
ALIASES = {"embed.out": "embed", "pos_embed.out": "pos_embed", "unembed.in": "ln_final.out", "unembed.out": "unembed"}


def points(config: Config) -> dict[str, str]:
    """Every activation point of a model, in the order of the forward pass: name → shape letters."""
    table = {"embed": "B T D", "pos_embed": "B T D"}
    for layer in range(config.n_layer):
        table |= {f"blocks.{layer}.{name}": shape for name, shape in BLOCK_POINTS.items()}
    norm = {"in": "B T D", "scale": "B T 1", "normalized": "B T D", "out": "B T D"}
    return table | {f"ln_final.{name}": shape for name, shape in norm.items()} | {"unembed": "B T V"}


def sizes(config: Config) -> dict[str, int]:
    """What the shape letters that a configuration settles stand for."""
    return {
        "D": config.n_embd,
        "H": config.n_head,
        "K": config.head_width,
        "F": config.mlp_width,
        "V": config.vocab_size,
        "1": 1,
    }


def canonical(name: str) -> str:
    """A point's own name, from any that TransformerLens has for it.

    ``blocks.0.hook_resid_pre`` and ``blocks.0.hook_in`` are both ``blocks.0.resid_pre``.
    """
    name = name.replace("hook_", "")
    parts = name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blocks":
        return f"blocks.{parts[1]}.{BLOCK_ALIASES.get(parts[2], parts[2])}"
    return ALIASES.get(name, name)


def select(names: Names, config: Config) -> list[str]:
    """The activation points that names and patterns (``blocks.*.attn.pattern``) mean, in the order of the forward pass.

    A function says of each point, by its own name (without ``hook_``), whether it is meant. None means every point but
    those in `ON_REQUEST`. A name that matches nothing is a ``ValueError`` that suggests the nearest one; so is a
    function that takes none.
    """
    known = points(config)
    if callable(names):
        taken = [name for name in known if names(name)]
        if not taken:
            raise ValueError("the filter of names takes no activation; names are like 'blocks.0.attn.pattern'")
        return taken
    if names is None:
        return [name for name in known if not name.endswith(ON_REQUEST)]
    chosen: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        matched = fnmatch.filter(known, canonical(name))
        if not matched:
            raise ValueError(f"no activation is named {name!r}; the nearest is {nearest(canonical(name), known)!r}")
        chosen.update(matched)
    return [name for name in known if name in chosen]


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]


# ---- taps -----------------------------------------------------------------------------------------------------------


class Tap(Protocol):
    """What `model.forward` calls at every activation point.

    A tap that has a method ``at(positions) -> Tap`` as well is told, before every pass, the (B, T) positions in their
    texts of what is fed: while generating they grow. What ``at`` returns then takes part in that pass.
    """

    def wants(self, name: str) -> bool:
        """Whether anything happens at this point; where not, the value may never be computed."""
        ...

    def __call__(self, name: str, x: Array) -> Array:
        """The value itself, or what takes its place."""
        ...


class NoTap:
    """The tap that watches nothing."""

    def __reduce__(self) -> str:
        return "no_tap"  # there is one, in every process

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


def placed(tap: Tap, positions: Array) -> Tap:
    """`tap`, told the (B, T) positions of what is about to be fed."""
    at = getattr(tap, "at", None)
    return tap if at is None else at(positions)


class Capture:
    """A tap that keeps the named activations in ``.values``: the model's own arrays, uncopied and read-only."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.values: dict[str, Array] = {}

    def wants(self, name: str) -> bool:
        return name in self.names

    def __call__(self, name: str, x: Array) -> Array:
        if name in self.names:
            # Nothing writes into an activation, so keeping it needs no copy; resid_post and the next resid_pre share.
            self.values[name] = x.view()
            self.values[name].flags.writeable = False
        return x


class Recording:
    """A tap that keeps the named activations of every pass: what a `Session` did, from its first id on."""

    def __init__(self, names: Iterable[str], config: Config) -> None:
        self.shapes = {name: points(config)[name] for name in names}
        self.passes: dict[str, list[Array]] = {name: [] for name in self.shapes}

    def wants(self, name: str) -> bool:
        return name in self.shapes

    def __call__(self, name: str, x: Array) -> Array:
        if name in self.shapes:
            self.passes[name].append(np.array(x))
        return x

    @property
    def values(self) -> dict[str, Array]:
        """Each activation over all passes, joined along T; what a position could not see yet is 0 (scores: −inf)."""
        return {
            name: join_passes(parts, self.shapes[name], -np.inf if name.endswith("attn_scores") else 0.0)
            for name, parts in self.passes.items()
            if parts
        }


def join_passes(parts: Sequence[Array], shape: str, unseen: float) -> Array:
    """Arrays of successive passes as one along their T axis, S filled up to the last pass's."""
    letters = shape.split()
    if "S" in letters:
        S = parts[-1].shape[-1]
        parts = [np.pad(part, [(0, 0)] * 3 + [(0, S - part.shape[-1])], constant_values=unseen) for part in parts]
    return np.concatenate(parts, axis=letters.index("T"))


class Both:
    """Two taps at once, the first one first: edits seen by a capture, for example."""

    def __init__(self, first: Tap, second: Tap) -> None:
        self.first, self.second = first, second

    def at(self, positions: Array) -> Tap:
        return Both(placed(self.first, positions), placed(self.second, positions))

    def wants(self, name: str) -> bool:
        return self.first.wants(name) or self.second.wants(name)

    def __call__(self, name: str, x: Array) -> Array:
        return self.second(name, self.first(name, x))


def both(first: Tap, second: Tap) -> Tap:
    """`Both`, or the one of them that isn't `no_tap`."""
    if first is no_tap:
        return second
    return first if second is no_tap else Both(first, second)
