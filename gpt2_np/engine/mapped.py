"""Parameters as a run reads them, in a file that every process on a machine maps: its memory is there once.

A checkpoint's float32 file is mapped too (`weights.load`), but what the kernels read is another layout, panels, which
each process would otherwise pack into memory of its own; reduced weights, and checkpoints in float16 or bfloat16, are
converted into such memory as well. The file is a safetensors file: the codes and scales of each matrix, and the other
arrays as they are. The panels come first, and the first of them begins where a page does, so that each begins with a
line of the processor's cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..model.arrays import Weight
from ..model.config import Config
from ..model.params import Params, assemble, flatten
from ..system.files import JSONObject, mapped, write_whole
from ..weights.panels import NO_SCALES, Matrix

Array = np.ndarray
FORMAT = "gpt2_np parameters 1"
PAGE = 4096
STORED = {"float32": "F32", "float64": "F64", "uint32": "U32", "uint16": "U16", "int8": "I8", "uint8": "U8"}
DTYPES = {stored: np.dtype(name) for name, stored in STORED.items()}


def write(path: Path, params: Params) -> None:
    """Write parameters, in whatever precision they are kept, as a whole or not at all. ``OSError`` names the file.

    ``ValueError`` for a matrix that is neither an array nor in panels, such as one with an adapter beside it.
    """
    shapes, panels, others = {}, {}, {}
    for name, weight in flatten(params):
        if isinstance(weight, Matrix):
            shapes[name] = weight.shape
            panels[f"{name}/codes"] = weight.codes
            if weight.scales.size:
                others[f"{name}/scales"] = weight.scales
        elif isinstance(weight, np.ndarray):
            others[name] = weight
        else:
            raise ValueError(f"{name} must be an array or in panels, got a {type(weight).__name__}")
    largest_first = dict(sorted(others.items(), key=lambda item: -item[1].itemsize))
    write_whole(path, pieces(panels | largest_first, {"format": FORMAT, "shapes": json.dumps(shapes)}))
    forget(path)


def forget(path: Path) -> None:
    """Have the system drop its copy of a file that was just written: it lies in small pages.

    What Linux reads from the disk for a mapping that asks for large pages lies in those, through which the processor
    finds its way far faster: decoding by the 124M shape in float32 took 1.6 times as long without.
    """
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file, contextlib.suppress(OSError):  # a file system that can't
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def pieces(arrays: dict[str, Array], about: dict[str, str]) -> Iterator[Any]:
    """Yield a safetensors file piece by piece; its first array begins where a page does."""
    header: JSONObject = {"__metadata__": about}
    start = 0
    for name, array in arrays.items():
        entry = {"dtype": STORED[array.dtype.name], "shape": list(array.shape)}
        header[name] = entry | {"data_offsets": [start, start + array.nbytes]}
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % PAGE)
    yield struct.pack("<Q", len(text))
    yield text
    for array in arrays.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def read(path: Path, config: Config) -> Params:
    """Return the parameters that `write` stored, mapped read-only. Only the header is read.

    ``ValueError`` for a file of any other kind or one that was cut short, ``OSError`` where it can't be read.
    """
    data = mapped(path, large_pages=True)
    try:
        size = struct.unpack("<Q", data[:8].tobytes())[0]
        header = json.loads(data[8 : 8 + size].tobytes())
        about = header.pop("__metadata__")
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}")
        shapes = json.loads(about["shapes"])
        arrays = {}
        for name, entry in header.items():
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            if end > data.nbytes:
                raise ValueError("it was cut short")
            arrays[name] = data[start:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors: dict[str, Weight] = {name: array for name, array in arrays.items() if "/" not in name}
        for name, (inputs, outputs) in shapes.items():
            scales = arrays.get(f"{name}/scales", NO_SCALES)
            tensors[name] = Matrix(arrays[f"{name}/codes"], scales, (inputs, outputs))
        return assemble(tensors, config)  # type: ignore[arg-type]  # it nests whatever stands for an array
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"{path} is no sound file of parameters: {error}") from None
