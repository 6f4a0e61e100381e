"""Named activation points: what can be captured or edited during a forward pass (`edits` makes the edits).

A tap is an argument of `model.forward`, which calls it at every point with the activation's name and value; the value
that it returns replaces the original. Names and shapes are TransformerLens's, and the ``hook_`` prefix is optional:
``blocks.0.attn.hook_pattern`` and ``blocks.0.attn.pattern`` are the same point. Nothing is registered anywhere, so
nothing can leak from one run into the next.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from ..display import Readable
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
# Large and rarely wanted, so it is captured only if named (as in TransformerLens).
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
    """Return every activation point of a model, in the order of the forward pass: name → shape letters."""
    table = {"embed": "B T D", "pos_embed": "B T D"}
    for layer in range(config.n_layer):
        table |= {f"blocks.{layer}.{name}": shape for name, shape in BLOCK_POINTS.items()}
    norm = {"in": "B T D", "scale": "B T 1", "normalized": "B T D", "out": "B T D"}
    return table | {f"ln_final.{name}": shape for name, shape in norm.items()} | {"unembed": "B T V"}


def sizes(config: Config) -> dict[str, int]:
    """Return the sizes of the shape letters that a configuration determines."""
    return {
        "D": config.n_embd,
        "H": config.n_head,
        "K": config.head_width,
        "F": config.mlp_width,
        "V": config.vocab_size,
        "1": 1,
    }


def canonical(name: str) -> str:
    """Return a point's own name, given any of TransformerLens's names for it.

    ``blocks.0.hook_resid_pre`` and ``blocks.0.hook_in`` are both ``blocks.0.resid_pre``.
    """
    name = name.replace("hook_", "")
    parts = name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blocks":
        return f"blocks.{parts[1]}.{BLOCK_ALIASES.get(parts[2], parts[2])}"
    return ALIASES.get(name, name)


def select(names: Names, config: Config) -> list[str]:
    """Return the activation points that names and patterns (``blocks.*.attn.pattern``) match, in the order of the
    forward pass.

    A function is asked about each point by its own name (without ``hook_``). None means every point except those in
    `ON_REQUEST`. A name that matches nothing is a ``ValueError`` that suggests the nearest one; a function that accepts
    no point is one too.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.model.taps import select
        >>> select("blocks.[01].attn.hook_z", model.config)
        ['blocks.0.attn.z', 'blocks.1.attn.z']
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
    """The function that `model.forward` calls at every activation point.

    If a tap has a method ``at(positions) -> Tap``, it is called before every pass with the (B, T) positions of the fed
    ids in their texts, which grow during generation; the tap that it returns is used for that pass.
    """

    def wants(self, name: str) -> bool:
        """Tell whether the tap is interested in this point; if not, the value may never be computed."""
        ...

    def __call__(self, name: str, x: Array) -> Array:
        """Return the value itself, or its replacement."""
        ...


class NoTap(Readable):
    """The tap that observes nothing."""

    def __reduce__(self) -> str:
        return "no_tap"  # there is one, in every process

    def wants(self, name: str) -> bool:
        return False

    def __call__(self, name: str, x: Array) -> Array:
        return x


no_tap = NoTap()


class WithPrefix(Readable):
    """A tap for one part of the model, whose names get a prefix: ``WithPrefix(tap, "blocks.3.")("attn.q", x)``."""

    def __init__(self, tap: Tap, prefix: str) -> None:
        self.tap, self.prefix = tap, prefix

    def wants(self, name: str) -> bool:
        return self.tap.wants(self.prefix + name)

    def __call__(self, name: str, x: Array) -> Array:
        return self.tap(self.prefix + name, x)


def with_prefix(tap: Tap, prefix: str) -> Tap:
    """Return `tap` with every name prefixed; this costs nothing where nothing is tapped."""
    return tap if tap is no_tap else WithPrefix(tap, prefix)


def at_positions(tap: Tap, positions: Array) -> Tap:
    """Return `tap`, informed of the (B, T) positions of the ids that are about to be fed."""
    at = getattr(tap, "at", None)
    return tap if at is None else at(positions)


class Capture(Readable):
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


class Recording(Readable):
    """A tap that keeps the named activations of every pass of a `Session`, from its first id on."""

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
        """Each activation over all passes, joined along T; entries that a position could not see are 0 (scores:
        −inf).
        """
        return {
            name: join_passes(parts, self.shapes[name], -np.inf if name.endswith("attn_scores") else 0.0)
            for name, parts in self.passes.items()
            if parts
        }


def join_passes(parts: Sequence[Array], shape: str, unseen: float) -> Array:
    """Join arrays of successive passes along their T axis; S is padded to the last pass's."""
    letters = shape.split()
    if "S" in letters:
        S = parts[-1].shape[-1]
        parts = [np.pad(part, [(0, 0)] * 3 + [(0, S - part.shape[-1])], constant_values=unseen) for part in parts]
    return np.concatenate(parts, axis=letters.index("T"))


class Both(Readable):
    """Two taps in sequence: a capture that records edited values, for example."""

    def __init__(self, first: Tap, second: Tap) -> None:
        self.first, self.second = first, second

    def at(self, positions: Array) -> Tap:
        return Both(at_positions(self.first, positions), at_positions(self.second, positions))

    def wants(self, name: str) -> bool:
        return self.first.wants(name) or self.second.wants(name)

    def __call__(self, name: str, x: Array) -> Array:
        return self.second(name, self.first(name, x))


def both(first: Tap, second: Tap) -> Tap:
    """Return `Both`, or the one of the two that isn't `no_tap`."""
    if first is no_tap:
        return second
    return first if second is no_tap else Both(first, second)
