"""The sums behind a dictionary's figures, in a file: parts of a corpus are judged apart and put together afterwards.

A file is safetensors: the sums of `evaluation.Sums` by name, and in its metadata which model and which dictionary they
are of. Sums of parts added up are those of one pass that ends a batch where a part ends: most figures are sums over
tokens, for which that changes nothing; SAEBench's and two of SAELens's go by batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...session.model import Model
from ...system.files import write_whole
from ...weights.header import safely_opened
from ..capture import fingerprint
from .dictionary import Dictionary
from .evaluation import Evaluation, Sums

Array = np.ndarray
FORMAT = "gpt2_np dictionary sums 1"
COUNTS = ("texts", "tokens", "predicted", "batches")
DIVIDED = ("cosine", "legacy", "bias")  # sums of quotients, which of silent activations are no numbers
LARGEST = 1e100  # no sum of float32 activations comes near it, and its square is still a number


@dataclass(frozen=True, eq=False)
class Judged:
    """Sums over some texts, and of what: ``model`` and ``dictionary`` are digests, ``hook_name`` where it belongs."""

    sums: Sums
    model: str
    dictionary: str
    hook_name: str

    @property
    def evaluation(self) -> Evaluation:
        """Return the figures. ``ValueError`` if no token counted."""
        return self.sums.evaluation()

    def save(self, path: Path | str) -> None:
        """Write a safetensors file, whole or not at all."""
        about = {name: getattr(self, name) for name in ("model", "dictionary", "hook_name")}
        from safetensors.numpy import save as to_bytes

        write_whole(Path(path), to_bytes(arrays(self.sums), {"format": FORMAT} | about))


def judged(model: Model, dictionary: Dictionary, sums: Sums) -> Judged:
    """Return sums with what they are of."""
    digest = hashlib.sha256(dictionary.hook_name.encode())
    for name, array in sorted(dictionary.tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return Judged(sums, fingerprint(model), digest.hexdigest()[:32], dictionary.hook_name)


def arrays(sums: Sums) -> dict[str, Array]:
    """Return every sum as an array: counts as int64, all others as float64."""
    named = dict(vars(sums))
    total = named.pop("total")
    found = {name: np.asarray(value, np.int64 if name in COUNTS else None) for name, value in named.items()}
    found["total"] = np.zeros(0) if total is None else total
    return {name: x if x.dtype.kind == "i" else x.astype(np.float64) for name, x in found.items()}


def merge(parts: Sequence[Judged]) -> Judged:
    """Return the sums over the texts of all parts. ``ValueError`` for none, or for unlike models or dictionaries."""
    if not parts:
        raise ValueError("there is nothing to merge: give at least one part")
    first, whole = parts[0], Sums(len(parts[0].sums.fired))
    for part in parts:
        for what in ("model", "hook_name", "dictionary"):
            if getattr(part, what) != getattr(first, what):
                values = f"{getattr(first, what)} and {getattr(part, what)}"
                raise ValueError(f"figures to merge must be of one {what.replace('_', ' ')}, got {values}")
        for name, value in vars(part.sums).items():
            before = getattr(whole, name)
            setattr(whole, name, value if before is None else before if value is None else before + value)
    return Judged(whole, first.model, first.dictionary, first.hook_name)


def check(name: str, found: Array, dtype: np.dtype) -> None:
    """``ValueError`` for an array that no sums can hold: of another dtype, below 0 where it counts, or too large."""
    if found.dtype != dtype:
        raise ValueError(f"{name} must be {dtype}, got {found.dtype}")
    least = 0 if dtype.kind == "i" else -LARGEST
    sound = (found >= least) & (found < LARGEST)
    if name in DIVIDED:
        sound |= ~np.isfinite(found)
    if not sound.all():
        raise ValueError(f"{name} must be between {least:g} and {LARGEST:g}, got {found[~sound].flat[0]}")


def load(path: Path | str) -> Judged:
    """Read what `save` wrote. ``ValueError`` names a file without such sums, ``OSError`` one that can't be read."""

    path = Path(path)
    try:
        with safely_opened(path) as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT!r}")
            named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        sums = Sums(len(named["fired"]))
        for name, value in vars(sums).items():
            found = named[name]
            check(name, found, np.asarray(value, None if value is not None else float).dtype)
            if name == "total":
                sums.total = found if found.size else None
            elif found.shape != np.shape(value):
                raise ValueError(f"{name} must have the shape {np.shape(value)}, got {found.shape}")
            else:
                setattr(sums, name, found if found.ndim else found.item())
        if not 0 <= sums.predicted <= sums.tokens or (sums.tokens > 0 and sums.batches < 1):
            counts = f"{sums.tokens} tokens, {sums.predicted} predicted, {sums.batches} batches"
            raise ValueError(f"its counts don't agree: {counts}")
        return Judged(sums, about["model"], about["dictionary"], about["hook_name"])
    except (KeyError, TypeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error).removeprefix(f"{path} ")
        raise ValueError(f"{path} holds no figures of a dictionary: {why}") from None
