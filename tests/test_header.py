"""The reader of safetensors headers in Python, beside the safetensors library's."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from gpt2_np.weights import header

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4)), "c": np.ones(5, np.uint8)}
WHOLE = save(TENSORS, {"format": "pt", "of": "a test"})
SIZE = struct.unpack("<Q", WHOLE[:8])[0]
A = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "x.safetensors"


def file_of(said: Any, data: bytes = b"1234") -> bytes:
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text + data


def by_python(path: Path) -> header.Header | None:
    """What a machine without the library reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "by_library", lambda path: None)
        try:
            return header.read(path)
        except ValueError as error:
            said = str(error)
    assert said.startswith(f"{path} is not a sound safetensors file: "), said
    assert "\n" not in said
    return None


def test_a_sound_file_is_read_as_by_the_library(path: Path) -> None:
    path.write_bytes(WHOLE)
    assert header.by_library(path) is None
    found = by_python(path)
    assert found is not None
    assert found == header.read(path)
    assert found.metadata == {"format": "pt", "of": "a test"}
    for name, array in TENSORS.items():
        entry = found.tensors[name]
        stored = np.frombuffer(WHOLE[entry.start : entry.stop], array.dtype).reshape(entry.shape)
        np.testing.assert_array_equal(stored, array)


def test_the_bundled_model_is_read_without_the_library() -> None:
    found = by_python(header.Path(__file__).parent.parent / "gpt2_np/bundled/tales/model.safetensors")
    assert found is not None
    assert found.tensors["transformer.wte.weight"].shape == (4096, 320)


@pytest.mark.parametrize(
    ("said", "data"),
    [
        ({"a": A | {"shape": [2]}}, b"1234"),  # a shape that the place doesn't hold
        ({"a": A | {"data_offsets": [0, 8]}}, b"1234"),  # beyond the file
        ({"a": A | {"data_offsets": [4, 0]}}, b"1234"),
        ({"a": A | {"data_offsets": [1, 5]}}, b"12345"),  # a gap
        ({"a": A, "b": A}, b"1234"),  # one over the other
        ({"a": A}, b"12345"),  # bytes that are no tensor's
        ({"a": A | {"shape": [1 << 40, 1 << 40]}}, b"1234"),
        ({"a": A | {"shape": [1.0]}}, b"1234"),
        ({"a": A | {"shape": [True]}}, b"1234"),
        ({"a": A | {"shape": [-1]}}, b"1234"),
        ({"a": A | {"shape": [1 << 64]}}, b"1234"),
        ({"a": A | {"dtype": "F31"}}, b"1234"),
        ({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}, b"1"),  # half a byte
        ({"a": A | {"data_offsets": [0, 4, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
        ({"a": None}, b""),
        ({"__metadata__": {"a": 1}}, b""),
        ([], b""),
        (b'{"__metadata__": {"a": NaN}}', b""),
        (b"\xff", b""),
        (b"\xef\xbb\xbf{}", b""),  # a byte order mark
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-0, 4]}}', b"1234"),
        (b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"1234"),
        (b"[" * 100_000, b""),
        (b"{}\0", b""),
    ],
)
def test_what_the_library_refuses_is_refused(path: Path, said: Any, data: bytes) -> None:
    path.write_bytes(file_of(said, data))
    assert header.by_library(path) is not None
    assert by_python(path) is None


def test_a_name_that_is_there_twice_is_refused(path: Path) -> None:
    entry = json.dumps(A)
    path.write_bytes(file_of(f'{{"a": {entry}, "a": {entry}}}'.encode()))
    with pytest.raises(ValueError, match="a name is in the header twice"):
        header.read(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_is_read_that_the_library_refuses(path: Path, data: st.DataObject) -> None:
    """Bytes changed, taken away and added, most of them in the header: both readers say the same of each file."""
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(8 + SIZE, len(content) - 1)))
        kind = data.draw(st.sampled_from(["set", "digit", "cut", "add", "drop"]))
        if kind == "set":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "digit":
            content[at : at + 1] = data.draw(st.sampled_from([b"0", b"1", b"9", b"-", b".", b"e", b'"', b",", b"00"]))
        elif kind == "cut":
            del content[max(at, 1) :]
        elif kind == "add":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del content[at : at + data.draw(st.integers(1, 9))]
        if not content:
            break
    path.write_bytes(bytes(content))
    refused, found = header.by_library(path) is not None, by_python(path)
    if found is None and not refused:
        with pytest.raises(ValueError, match="in the header twice"):
            header.read(path)
    else:
        assert (found is None) == refused, bytes(content)
