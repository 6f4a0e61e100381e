"""Captures as a task over a corpus: options, the size of shards, and a folder that `Captured` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..internals.capture import BY_CHUNK, about_of, estimate
from ..model.taps import select
from ..system.files import JSONObject, write_whole
from . import models
from .folder import CAPTURE
from .inputs import Cut
from .job import Job

LENGTH = 256  # tokens that a row is cut into, where the context holds so many
BYTES = 3  # of text, that a token stands for at least on average: a shard's size is a guess before it is encoded


def options(home: Path, names: str | Sequence[str], length: int | None, store: str) -> JSONObject:
    """Return a run's options. ``ValueError`` for an unknown name, and for a length or a store that can't be."""
    gpt2 = models.without_weights(home, "numpy")
    context = gpt2.config.n_positions
    length = min(LENGTH, context) if length is None else length
    if not 2 <= length <= context:
        raise ValueError(f"length must be between 2 and {context}, the model's context, got {length}")
    if store not in ("float32", "float16"):
        raise ValueError(f"store must be float32 or float16, got {store!r}")
    return {"names": list(select(names, gpt2.config)), "length": length, "store": store}


def cut(home: Path, options: JSONObject, most: Cut, size: int) -> Cut:
    """Return a shard's size in rows and bytes of text, so that it holds about `size` bytes of activations."""
    gpt2 = models.without_weights(home, "numpy")
    each = estimate(gpt2, options["names"], [options["length"]], options["store"])
    return Cut(max(1, min(most.rows, size // each)), max(1, min(most.bytes, size // each * options["length"] * BYTES)))


def begin(out: Path, home: Path, job: Job, chunks: int) -> None:
    """Write ``capture.json`` unless it exists."""
    if (out / CAPTURE).exists():
        return
    model = models.fingerprint_of_parameters(home, job.dtype)
    write(out, job.options["names"], job.options["store"], model, chunks)


def write(out: Path, names: Sequence[str], store: str, model: str, chunks: int) -> None:
    """Write ``capture.json``, which says what is captured, of which model, and in how many chunks."""
    about = {"names": list(names), "dtype": store, "model": model, "numbered": BY_CHUNK, "chunks": chunks}
    write_whole(out / CAPTURE, json.dumps(about, indent=1).encode())


def read(out: Path) -> JSONObject:
    """Return a capture's ``capture.json``. ``ValueError`` for a broken one."""
    return about_of(out)
