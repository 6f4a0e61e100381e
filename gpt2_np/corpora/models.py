"""A run's model in each of its workers: known by its files, and in memory once a machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..internals import capture
from ..model.arrays import Weight
from ..model.config import Config
from ..model.params import Params, as_array, assemble, flatten, shapes
from ..session.implementation import NumPy
from ..system import cache_folder
from ..system.files import lock, release_pages, write_whole
from ..system.reuse import give_back
from ..text.gpt2 import GPT2
from ..version import __version__
from ..weights import hub
from ..weights.load import files, fits
from ..weights.load import load as load_params
from ..weights.panels import Matrix
from .job import Job

TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe")
KEPT = 4  # models that the cache holds, those that were last used
SMALL = 1 << 20  # bytes of an array that isn't worth a file
DIGEST = re.compile("[0-9a-f]{32}")
DIGESTS = 64  # digests that the cache holds, those that were last used
SETTLED = 2_000_000_000  # nanoseconds after which a file's next change has another time


def without_weights(folder: Path, backend: str) -> GPT2:
    """Return the model of a folder with zeros for weights, for what asks for its configuration and its tokenizer.

    The zeros of an array are one number, so nothing is loaded. ``ValueError`` or ``OSError`` if the folder's weights
    don't fit its configuration.
    """
    config = Config.from_file(folder / "config.json")
    fits(folder, config)
    zero = np.zeros((), np.float32)
    zeros = {name: np.broadcast_to(zero, shape) for name, shape in shapes(config).items()}
    return GPT2(assemble(zeros, config), config, folder=folder, backend=backend)


def fingerprint(folder: Path) -> str:
    """Return a digest of the bytes of a model's files: configuration, weights and tokenizer."""
    named = ("config.json", *hub.EXTRAS, *TOKENIZER)
    paths = [*(folder / name for name in named if (folder / name).is_file()), *files(folder)]
    return known(paths, "files", lambda: digest_of(paths))


def fingerprint_of_parameters(folder: Path, dtype: str) -> str:
    """Return the digest by which captures of a folder's model are known (`capture.fingerprint`), "float32" or
    "float64".

    Parameters are read one after the other, and none stays in memory.
    """

    def one_by_one(config: Config) -> Iterator[tuple[str, Weight]]:
        for name, array in flatten(load_params(folder, config, to_convert=True)):
            yield name, as_array(array).astype(dtype, copy=False)
            release_pages(as_array(array))

    def whole() -> str:
        config = Config.from_file(folder / "config.json")
        return capture.digest_of(config, one_by_one(config))

    return known([folder / "config.json", *files(folder)], f"parameters {dtype}", whole)


def known(paths: Sequence[Path], what: str, whole: Callable[[], str]) -> str:
    """Return a digest of files: the one in the cache, or what `whole` returns, which reads them.

    Once they were read, the digest is kept in the cache, so that the workers of a machine don't all read them: for
    these files in this state, by their places on the disk, their sizes and the times of their last changes, of which
    the system sets one itself. Git trusts the same marks, and like it we keep no digest of a file that was changed less
    than two seconds ago, since it may change once more within what its clock can tell.
    """
    before = state(paths)
    try:
        kept = place() / f"{hashlib.sha256(repr((what, before)).encode()).hexdigest()[:32]}.digest"
        with alone(kept.with_name("digests")):
            try:
                found = kept.read_text(encoding="ascii")
            except (FileNotFoundError, UnicodeDecodeError):
                found = ""
            if DIGEST.fullmatch(found):
                os.utime(kept)
                return found
            found = whole()
            if state(paths) == before and time.time_ns() - max(one[-1] for one in before) > SETTLED:
                write_whole(kept, found.encode())
                prune(kept, DIGESTS)
            return found
    except OSError:  # the cache can't be written, or a file can't be read, which is told of here
        return whole()


def state(paths: Sequence[Path]) -> list[tuple[Any, ...]]:
    """Return what tells a file from all others and from itself before it was changed: the last is when that was."""
    found = []
    for path in paths:
        status = path.stat()
        times = status.st_mtime_ns, status.st_ctime_ns
        found.append((path.name, status.st_dev, status.st_ino, status.st_size, *times, max(times)))
    return found


def digest_of(paths: Sequence[Path]) -> str:
    """Return the digest of files' names, sizes and bytes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:32]


def load(job: Job, *, share: bool) -> GPT2:
    """Load the run's model; with `share`, map its weights from a file that all workers on this machine map.

    Where the cache can't be written, the worker has weights of its own. ``ValueError`` if the name leads to other files
    here than where the run was started.
    """
    folder = hub.locate(job.model)
    found = fingerprint(folder)
    if found != job.fingerprint:
        raise ValueError(f"{folder} holds another model here than where the run was started")
    if share:
        try:
            return shared(job, folder)
        except OSError:
            give_back()
    return own(job, folder)


def own(job: Job, folder: Path) -> GPT2:
    """Load the run's model with weights of its own."""
    return GPT2.from_pretrained(folder, dtype=job.dtype, backend=job.backend)


def shared(job: Job, folder: Path) -> GPT2:
    """Load the run's model from the file of its weights in the cache, which the first worker on a machine writes.

    ``OSError`` if it can't be written or read.
    """
    from ..engine import mapped

    path = place() / f"{job.fingerprint}-{job.dtype}-{job.backend}-{__version__}.safetensors"
    config = Config.from_file(folder / "config.json")
    with alone(path):
        try:
            params = mapped.read(path, config)
        except (FileNotFoundError, ValueError):  # a damaged file counts as missing
            gpt2 = own(job, folder)
            params = as_run(gpt2)
            if all(is_mapped(array) for array in arrays(params) if array.nbytes > SMALL):
                return gpt2  # the checkpoint itself is what a run reads, and it is mapped already
            mapped.write(path, params)
            prune(path, KEPT)
            del gpt2, params
            give_back()
            params = mapped.read(path, config)
        os.utime(path)
    return GPT2(params, config, folder=folder, backend=job.backend)


def as_run(gpt2: GPT2) -> Params:
    """Return the parameters as a run without taps reads them."""
    implementation = gpt2.implementation
    assert isinstance(implementation, NumPy)
    return implementation.packed if implementation.compiled else gpt2.params


def arrays(params: Params) -> Iterator[np.ndarray]:
    """Yield every array that parameters are made of."""
    for _, weight in flatten(params):
        if isinstance(weight, Matrix):
            yield from (weight.codes, weight.scales)
        else:
            yield np.asarray(weight)


def is_mapped(array: np.ndarray) -> bool:
    """Tell whether an array lies in a mapped file."""
    whole: object = array
    while isinstance(whole, np.ndarray):
        if isinstance(whole, np.memmap):
            return True
        whole = whole.base
    return False


def place() -> Path:
    """Return the folder for such files, made for this user alone.

    ``OSError`` where it can't be made, and where others may write to it.
    """
    folder = cache_folder.place(os.environ.get("NUMBA_CACHE_DIR")) / "weights"
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
        try:
            cache_folder.check(one)
        except PermissionError as error:
            raise PermissionError(f"weights can't be kept in {one}: {error}") from None
    return folder


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one worker of a machine at a time make a file, while the others wait."""
    with open(path.with_name(f".{path.name}.lock"), "wb") as file:
        lock(file, wait=True)  # where there are no locks, several make it, each whole
        yield


def prune(newest: Path, kept: int) -> None:
    """Remove all files of this kind but the last used. A process that has one mapped keeps it."""
    with contextlib.suppress(OSError):  # another process may be at it too
        others = newest.parent.glob(f"*{newest.suffix}")
        found = sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in found[kept:]:
            if path != newest:
                path.unlink()
                path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
