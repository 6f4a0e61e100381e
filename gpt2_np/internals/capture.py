"""Captures larger than memory: the activations of a corpus, on disk, chunk by chunk.

A capture is a folder: ``capture.json`` says what is captured, and every ``chunk-00000.safetensors`` holds some texts
whole, as ``"17.blocks.0.resid_pre"`` (text number, activation's name; no B axis) beside ``"17.ids"``. A chunk is
either whole or not there, so a killed capture goes on where it was, and what was written can always be read.

Where ``capture.json`` has ``"numbered": "by chunk"`` and the number of ``"chunks"``, several workers wrote it
(`gpt2_np.corpora`): texts are counted from chunk to chunk, in the order of their numbers within each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..display import brief
from ..model.arrays import Weight
from ..model.config import Config
from ..model.params import as_array, flatten
from ..model.taps import canonical, points, select
from ..session.model import Model
from ..system.files import JSONObject, read_object, write_whole
from ..weights.header import safely_opened
from .partial_runs import activations

Array = np.ndarray
STORED = {"float32": "F32", "float16": "F16"}  # what activations may be stored in, as safetensors calls it
BY_CHUNK = "by chunk"  # what capture.json says where a text's number is its place among all chunks' texts


def capture_corpus(
    model: Model,
    texts: Iterable[Sequence[int]],
    names: str | Iterable[str],
    folder: Path,
    *,
    chunk_bytes: int = 256 << 20,
    dtype: str = "float32",
    progress: Callable[[int], object] | None = None,
) -> Captured:
    """Capture the named activations of every text of ids into a folder, and open it.

    A folder that already holds part of the same capture is continued: its texts are passed over (`progress` is told
    of every text's tokens all the same). ``ValueError`` when it holds another capture, or for an unknown name; an
    error of the disk, or in reading the next text, leaves what was captured before it on disk, readable and resumable.
    `chunk_bytes` is about how much is kept in memory; `dtype` is what is stored, "float32" or "float16".
    """
    if dtype not in STORED:
        raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes must be at least 1, got {chunk_bytes}")
    chosen = select(names, model.config)
    about = {"names": chosen, "dtype": dtype, "model": fingerprint(model)}
    folder.mkdir(parents=True, exist_ok=True)
    captured = _begin(folder, about)
    chunk: dict[str, Array] = {}
    size, number = 0, len(captured.chunks)

    def write() -> None:
        nonlocal chunk, size, number
        full, chunk, size = chunk, {}, 0  # a chunk that can't be written is not tried again
        if full:
            from safetensors.numpy import save

            write_whole(folder / f"chunk-{number:05}.safetensors", save(full))
            number += 1

    source = iter(texts)
    for text in itertools.islice(source, len(captured)):
        if progress is not None:
            progress(np.shape(text)[-1])
    try:
        for count, text in enumerate(source, len(captured)):
            new = _capture(model, text, chosen, dtype, count)
            chunk |= new
            size += sum(array.nbytes for array in new.values())
            if size >= chunk_bytes:
                write()
            if progress is not None:
                progress(np.shape(text)[-1])
    finally:
        write()  # also after an unreadable document or Ctrl-C: computed activations are kept
    return Captured(folder)


def _capture(model: Model, text: Sequence[int], names: Sequence[str], dtype: str, number: int) -> dict[str, Array]:
    ids = model.check_ids(text)
    if len(ids) != 1:
        raise ValueError(f"a corpus is made of texts, each one row of ids, got {len(ids)} rows")
    cache = activations(model, ids, names)
    arrays = {name: np.ascontiguousarray(x[0], dtype) for name, x in cache.items()}
    return {f"{number}.{name}": x for name, x in ({"ids": ids[0]} | arrays).items()}


def _begin(folder: Path, about: JSONObject) -> Captured:
    if not (folder / "capture.json").exists():
        if any(folder.glob("chunk-*.safetensors")):
            raise ValueError(f"{folder} holds chunks without their capture.json; choose another folder")
        write_whole(folder / "capture.json", json.dumps(about, indent=1).encode())
    captured = Captured(folder)
    if "numbered" in captured.about:
        raise ValueError(f"{folder} holds a capture that several workers made, or a merged one; choose another folder")
    for what, value in about.items():
        if captured.about.get(what) != value:
            found = captured.about.get(what)
            raise ValueError(f"{folder} holds a capture with another {what}: {_short(found)}, not {_short(value)}")
    return captured


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def fingerprint(model: Model) -> str:
    """Return a digest of a model's configuration and parameters, which distinguishes its captures from others."""
    return digest_of(model.config, flatten(model.params))


def digest_of(config: Config, params: Iterable[tuple[str, Weight]]) -> str:
    """Return the digest of a configuration and of named parameters, which are taken one after the other."""
    digest = hashlib.sha256(repr(config).encode())
    for name, array in params:
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(as_array(array)).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]


def about_of(folder: Path) -> JSONObject:
    """Return a folder's ``capture.json``. ``ValueError`` names one that describes no capture."""
    path = folder / "capture.json"
    try:
        about = read_object(path)
    except ValueError as error:
        raise ValueError(f"{path} does not describe a capture: {str(error).removeprefix(f'{path} ')}") from None
    names, dtype, model = (about.get(name) for name in ("names", "dtype", "model"))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        wrong = f"its names must be a list of activations, got {names!r:.100}"
    elif not isinstance(dtype, str) or dtype not in STORED:
        wrong = f"its dtype must be {' or '.join(STORED)}, got {dtype!r:.60}"
    elif not isinstance(model, str):
        wrong = f"its model must be a digest, got {model!r:.60}"
    else:
        return about
    raise ValueError(f"{path} does not describe a capture: {wrong}")


class Captured:
    """A capture on disk: ``captured[17, "blocks.0.resid_pre"]`` is (T, …); ``len`` counts texts. Nothing is preloaded.

    ``ValueError`` or ``OSError`` names what is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = about_of(folder)
        self.names: list[str] = self.about["names"]
        self.chunks = sorted(folder.glob("chunk-*.safetensors"))
        by_chunk = self.about.get("numbered") == BY_CHUNK
        self._chunk_of: dict[int, tuple[Path, int]] = {}  # a text's chunk, and its number there
        for path in self.chunks:
            before = len(self._chunk_of)
            for place, text in enumerate(self._texts(path)):
                self._chunk_of[before + place if by_chunk else text] = path, text
        whole = len(self.chunks) == self.about.get("chunks") if by_chunk else True
        if not whole or sorted(self._chunk_of) != list(range(len(self._chunk_of))):
            raise ValueError(f"{folder} has gaps: some of its chunks are missing")

    def __repr__(self) -> str:
        return f"Captured({len(self)} texts, {brief(self.names)}, folder={brief(self.folder)})"

    def _texts(self, path: Path) -> list[int]:
        """The numbers of a chunk's texts, sorted. ``ValueError`` where one lacks an activation; its header says so."""
        with safely_opened(path) as file:
            keys = set(file.keys())
            numbers = [key.removesuffix(".ids") for key in keys if key.endswith(".ids")]
            wanted = {"ids": "I64"} | dict.fromkeys(self.names, STORED[self.about["dtype"]])
            for number in numbers:
                if not number.isdecimal():
                    raise ValueError(f"{path} is not a capture's chunk: a text's number is {number!r:.60}")
                for name, dtype in wanted.items():
                    key = f"{number}.{name}"
                    found = file.get_slice(key).get_dtype() if key in keys else "nothing"
                    if found != dtype:
                        raise ValueError(f"{path} is not a capture's chunk: {key} must be {dtype}, got {found}")
        return sorted(map(int, numbers))

    def __len__(self) -> int:
        return len(self._chunk_of)

    def __getitem__(self, key: tuple[int, str]) -> Array:
        text, name = key
        name = canonical(name)
        if text not in self._chunk_of:
            raise ValueError(f"text must be between 0 and {len(self) - 1}, got {text}")
        if name != "ids" and name not in self.names:
            raise ValueError(f"{name!r} is not in this capture; it holds {', '.join(self.names)}")
        path, number = self._chunk_of[text]
        with safely_opened(path) as file:
            return file.get_tensor(f"{number}.{name}")

    def ids(self, text: int) -> Array:
        """A text's ids: (T,)."""
        return self[text, "ids"]

    def over_texts(self, name: str) -> Iterator[Array]:
        """Yield one activation of every text in order, one text in memory at a time."""
        return (self[text, name] for text in range(len(self)))


def estimate(model: Model, names: str | Iterable[str], tokens: Sequence[int], dtype: str = "float32") -> int:
    """Return the bytes that a capture of texts with these numbers of tokens takes."""
    from ..model.taps import sizes

    letters, total = sizes(model.config), 0
    table = points(model.config)
    for T in tokens:
        known = letters | {"B": 1, "T": T, "S": T}
        for name in select(names, model.config):
            total += int(np.prod([known[letter] for letter in table[name].split()])) * np.dtype(dtype).itemsize
        total += 8 * T
    return total
