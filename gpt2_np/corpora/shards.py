"""Shards: what came of a part, in one file that is there as a whole or not at all.

A score's or a text's shard is Parquet, a capture's is safetensors. In the file's own metadata stands, under `KEY`, what
came of the part: which rows it had, which of them failed and why, and sums. So one rename says that all of it is done.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..system.errors import in_words
from ..system.files import JSONObject, write_whole
from ..weights.header import safely_opened
from ..weights.save import safetensors
from .inputs import opened
from .packages import arrow, parquet

KEY = "gpt2_np"
Record = dict[str, Any]
CAPTURE = "chunk-{:05}.safetensors"  # as `internals.capture` names them
TABLE = "part-{:05}.parquet"
PATTERNS = {"score": "part-*.parquet", "generate": "part-*.parquet", "capture": "chunk-*.safetensors"}


def name_of(task: str, number: int) -> str:
    """Return a shard's file name."""
    return (CAPTURE if task == "capture" else TABLE).format(number)


def schema(task: str, ids: str) -> Any:
    """Return the columns of a table of scores or of texts."""
    pa = arrow()
    identity = ("id", pa.string() if ids == "text" else pa.int64())
    if task == "score":
        return pa.schema([identity, ("nll", pa.float64()), ("tokens", pa.int64()), ("bytes", pa.int64())])
    return pa.schema(
        [
            identity,
            ("sequence", pa.int32()),
            ("prompt", pa.string()),
            ("text", pa.string()),
            ("ids", pa.list_(pa.int64())),
            ("logprobs", pa.list_(pa.float64())),
            ("finish_reason", pa.string()),
            ("score", pa.float64()),
            ("healed", pa.string()),  # the prompt that was continued, where its end was regrown
        ]
    )


def write_table(path: Path, columns: Any, records: Sequence[Record], about: JSONObject) -> None:
    """Write records and their description as Parquet. ``OSError`` names the file that can't be written."""
    pa = arrow()
    table = pa.Table.from_pylist(list(records), schema=columns.with_metadata({KEY: json.dumps(about)}))
    memory = io.BytesIO()
    parquet().write_table(table, memory, compression="zstd")
    write_whole(path, memory.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: JSONObject) -> None:
    """Write arrays and their description as safetensors. ``OSError`` names the file that can't be written."""
    write_whole(path, safetensors(arrays, {KEY: json.dumps(about)}))


def about(path: Path) -> JSONObject:
    """Return a shard's description of itself. ``ValueError`` names a file that is no sound shard."""
    try:
        if path.suffix == ".parquet":
            with opened(path) as table:
                said = (table.schema_arrow.metadata or {})[KEY.encode()]
        else:
            with safely_opened(path) as file:
                said = (file.metadata() or {})[KEY]
        found: JSONObject = json.loads(said)
    except (KeyError, ValueError) as error:
        why = "it doesn't say what it holds" if isinstance(error, KeyError) else in_words(error)
        raise ValueError(f"{path} is not a shard of this kind; remove it and run again: {why}") from None
    return found


def records_of(path: Path) -> list[Record]:
    """Return a shard's rows. ``ValueError`` names a file that is no sound shard."""
    with opened(path) as table:
        found: list[Record] = table.read().to_pylist()
    return found
