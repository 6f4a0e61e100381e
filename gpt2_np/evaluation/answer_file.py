"""A file of answers, so that an interrupted evaluation can continue, and a later one repeats no request.

The harness has such a file too (``--use_cache``), which is read by pickle, so that it must be trusted like a program,
and which takes the answers of one model for those of any other. This one holds JSON, under keys that name the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..display import Readable
from ..model.params import as_array, flatten
from ..model.taps import no_tap
from ..session.model import Model
from ..weights.panels import Matrix


def fingerprint(model: Model, settings: Mapping[str, Any]) -> str:
    """Return a digest that distinguishes a model's answers: of its configuration, weights, precision, and `settings`.

    ``ValueError`` for a model with edits, which are functions that nothing tells apart.
    """
    if model.tap is not no_tap:
        raise ValueError("answers of a model with edits can't be kept: nothing tells one edit from another")
    digest = hashlib.sha256(f"{model.config} {model.dtype} {sorted(settings.items())}".encode())
    for name, weight in flatten(model.params):
        parts = [weight.codes, weight.scales] if isinstance(weight, Matrix) else [as_array(weight)]
        for part in parts:
            digest.update(f"{name} {part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


class Answers(Readable):
    """A SQLite file of answers of one model, which is named by its `fingerprint`."""

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        self.file: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """The file, open for `get` and `put`. ``ValueError`` for one that holds something else; ``OSError``."""
        try:
            self.file = sqlite3.connect(self.path, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise OSError(f"{self.path}: {error}") from None
        try:
            with contextlib.closing(self.file):
                self.file.execute("PRAGMA synchronous = OFF")  # a kill loses nothing; a power failure may
                self.file.execute("CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT)")
                yield
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} must be a file of answers: {error}") from None
        finally:
            self.file = None

    def get(self, kind: str, request: tuple[Any, ...]) -> Any:
        """Return the answer to a request, as parsed JSON; None if there is none yet."""
        assert self.file is not None, "the file is not open"
        found = self.file.execute("SELECT answer FROM answers WHERE request = ?", [self.key(kind, request)]).fetchone()
        return None if found is None else json.loads(found[0])

    def put(self, kind: str, request: tuple[Any, ...], answer: Any) -> None:
        """Store an answer."""
        assert self.file is not None, "the file is not open"
        row = [self.key(kind, request), json.dumps(answer)]
        self.file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)

    def key(self, kind: str, request: tuple[Any, ...]) -> str:
        """Return the key of an answer."""
        return hashlib.sha256(json.dumps([self.model, kind, request], default=repr).encode()).hexdigest()
