"""A safetensors file's header: which tensors it holds, and where. Checked by the safetensors library, or in Python.

The library's reader is in Rust, which isn't to be had everywhere: not in a browser. The reader in Python goes by the
same rules (https://github.com/safetensors/safetensors), and refuses a name that is there twice as well. A file is 8
bytes with the header's size (little-endian), the header (JSON: each tensor's dtype, shape and place), and the tensors,
one after another without a gap. No size that a file names is used before it is known to fit the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..system.files import JSONObject, pretender

LARGEST = 100_000_000  # bytes of a header, as the library has it
MOST = 1 << 64  # numbers are below it
# Bits of an element. Those of less than a byte are for tensors that are whole bytes.
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | {
    name: bits
    for bits, names in {
        8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        16: "I16 U16 F16 BF16",
        32: "I32 U32 F32",
        64: "I64 U64 F64 C64",
    }.items()
    for name in names.split()
}


class Entry(NamedTuple):
    """A tensor's dtype, shape, and place in the file, in bytes from its beginning."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """A file's tensors by name, in the header's order, and its notes."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def read(path: Path) -> Header:
    """Return a file's header. ``ValueError`` names a file that is truncated or damaged, ``OSError`` one that can't be
    read.

    Examples:
        >>> from gpt2_np.weights import header, hub
        >>> header.read(hub.locate("tales") / "model.safetensors").tensors["transformer.wpe.weight"].shape
        (512, 320)
    """
    with path.open("rb") as file:  # OSError tells why when it can't be read
        problem = by_library(path)
        if problem is not None:
            raise ValueError(problem)
        file.seek(0, 2)
        size = file.tell()
        file.seek(0)
        try:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8 or 8 + length > size:
                raise ValueError(f"the header must fit the file's {size} bytes")
            if length > LARGEST:
                raise ValueError(f"the header must have at most {LARGEST} bytes, got {length}")
            return parsed(file.read(length), size)
        except ValueError as error:
            raise unsound(path, error) from None


def by_library(path: Path) -> str | None:
    """Return what the safetensors library finds wrong with a file; None also where there is no library."""
    try:
        with opened(path):
            return None
    except ModuleNotFoundError:
        return None
    except ValueError as error:
        return str(error)


@contextmanager
def safely_opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file with the library of that name, whose tensors are then read one by one.

    ``ValueError`` names the file if it is damaged, whenever that shows, ``OSError`` if it can't be read.
    """
    with path.open("rb"):  # OSError tells why when it can't be read
        pass
    with opened(path) as file:
        yield file


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Do as `safely_opened` with a file that can be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise unsound(path, error) from None


def unsound(path: Path, error: Exception) -> ValueError:
    """Return the error for a file that is no sound safetensors file, or that is something else altogether."""
    return ValueError(pretender(path) or f"{path} is not a sound safetensors file: {error}")


def parsed(text: bytes, size: int) -> Header:
    """Return what the JSON of a file of `size` bytes says. ``ValueError`` for all that the library refuses too."""
    try:
        decoded = text.decode("utf-8")  # by json itself it could be UTF-16 as well
        content = json.loads(decoded, object_pairs_hook=unique, parse_constant=no_constant, parse_int=integer)
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"the header must be a JSON object, got {type(content).__name__}")
    metadata = content.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ must be an object of texts")
    "".join([*content, *metadata, *metadata.values()]).encode()  # half a character, which JSON can spell, is refused
    base = 8 + len(text)
    tensors = {name: entry(name, said, base) for name, said in content.items()}
    end = base
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if one.start != end:
            raise ValueError(f"tensor {name!r} must begin at byte {end - base}, got {one.start - base}")
        end = one.stop
    if end != size:
        raise ValueError(f"the tensors must end where the file does, at byte {size}, got {end}")
    return Header(tensors, metadata)


def entry(name: str, said: Any, base: int) -> Entry:
    """Return one tensor's entry, whose shape, dtype and place agree. ``ValueError`` otherwise."""
    try:
        dtype, shape, (start, stop) = said["dtype"], said["shape"], said["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"tensor {name!r} must have a dtype, a shape and two data_offsets") from None
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {name!r} must have a known dtype, got {dtype!r:.40}")
    if not isinstance(shape, list) or not all(whole(number) for number in [*shape, start, stop]):
        raise ValueError(f"tensor {name!r} must have whole numbers for its shape and data_offsets")
    bits = math.prod(shape) * BITS[dtype]
    if bits >= MOST or bits % 8 or stop - start != bits // 8:
        raise ValueError(f"tensor {name!r} must have {bits / 8:g} bytes by its shape and dtype, got {stop - start}")
    return Entry(dtype, tuple(shape), base + start, base + stop)


def whole(number: object) -> bool:
    """Tell whether JSON's value is a whole number that 64 bits hold."""
    return type(number) is int and 0 <= number < MOST


def unique(pairs: list[tuple[str, Any]]) -> JSONObject:
    """Return a JSON object. ``ValueError`` for a name that is there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is in the header twice")
    return found


def integer(digits: str) -> float:
    """Return a number without a point or an exponent; −0 is no whole number."""
    return -0.0 if digits == "-0" else int(digits)


def no_constant(name: str) -> None:
    """Refuse NaN and Infinity, which JSON doesn't have."""
    raise ValueError(f"{name} is no JSON")
