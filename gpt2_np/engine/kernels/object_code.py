"""Object files: compiled code that a later process links and calls without loading Numba.

Numba's own cache needs Numba to be read, which takes longer than all the rest of a start. An object file needs LLVM's
linker (llvmlite) and the functions that the code calls (`numba_runtime`). Where anything is missing or unknown, there
is no object file, and Numba does what it always does.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import code_cache, numba_runtime, sources, target

# ELF's table of symbols. A symbol of section 0 is defined elsewhere.
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
# Variables of the environment that don't change the code.
FREE = {"NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR"}


def supported() -> bool:
    """Tell whether object files are used: on Linux, and where Numba compiles, and isn't loaded or configured by a file.

    A loaded Numba may have been configured in ways that the environment doesn't show.
    """
    unconfigured = "numba" not in sys.modules and not os.path.exists(".numba_config.yaml")
    return sys.platform == "linux" and unconfigured and os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def load(source: Path, name: str) -> int | None:
    """Return the address of the function that `save` stored under this name, as `linked` does; None if there is none
    that can be used.
    """
    try:
        path = _path(source, name)
        code_cache.check(path.parent.parent)
        content = code_cache.read(path)
        if content is None:
            return None
        code_cache.used(path.parent)
    except (OSError, ImportError):
        return None
    return linked(content)


def save(source: Path, name: str, content: bytes) -> None:
    """Store an object file with its header for `load`; if that fails, one line on stderr says so."""
    place = "the user's cache"
    try:
        path = _path(source, name)
        place = str(path.parent.parent)
        code_cache.write(path, content)
    except (OSError, ImportError) as error:
        code_cache.say_uncached(place, getattr(error, "strerror", None) or str(error))


def with_header(code: bytes, entry: str, layer: str) -> bytes:
    """Return an object file behind a line that names its function, which has C's calling convention, and the threading
    layer that it was compiled for.
    """
    return json.dumps({"entry": entry, "layer": layer}).encode() + b"\n" + code


def linked(content: bytes) -> int | None:
    """Link what `with_header` returned, and start its layer's threads.

    Return the function's address; None if something is missing here, or unknown.
    """
    line, _, code = content.partition(b"\n")
    try:
        about = json.loads(line)
        return _linked(code, about["entry"], about["layer"]) if code.startswith(b"\x7fELF") else None
    except (OSError, ImportError, ValueError, KeyError, AttributeError):
        return None


def _path(source: Path, name: str) -> Path:
    """Return FOLDER/MODULE-object-KEY/NAME.o, where the key covers everything that the code depends on."""
    key = hashlib.sha256(repr((sources.digest(source), made_by())).encode()).hexdigest()[:16]
    folder = code_cache.place(os.environ.get("NUMBA_CACHE_DIR"))
    return folder / f"{source.stem}-object-{key}" / f"{name}.o"


@cache
def made_by() -> tuple[Any, ...]:
    """Return what identifies the compilers, their settings and their target, without loading Numba.

    ``OSError`` or ``ImportError`` if that can't be determined.
    """
    import llvmlite
    from llvmlite import binding

    version = hashlib.sha256((numba_runtime.folder() / "_version.py").read_bytes()).hexdigest()
    settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_") and item[0] not in FREE)
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten())
    return version, llvmlite.__version__, sys.version, settings, *host, target.tiles_granted()


def _linked(code: bytes, entry: str, layer: str) -> int | None:
    """Link an object file into this process, and return the address of its function `entry`.

    LLVM ends the process if a symbol is unknown, so it is asked for each of them first. That includes those of Python
    itself, which it knows once there is an engine.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    for symbol, where in numba_runtime.symbols(layer).items():
        binding.add_symbol(symbol, where)
    file = binding.ObjectFileRef.from_data(code)
    if not all(binding.address_of_symbol(symbol) for symbol in undefined(file)):
        return None
    numba_runtime.start(layer)
    engine.add_object_file(file)
    engine.finalize_object()
    _kept.append((engine, file))
    address: int = engine.get_function_address(entry)
    return address or None


_kept: list[Any] = []  # the code is unloaded with its engine


def undefined(file: Any) -> list[str]:
    """Return the names of the symbols that an object file uses and doesn't define. ``KeyError`` if it isn't ELF."""
    sections = {section.name(): section.data() for section in file.sections()}  # llvmlite gives bytes, or str once
    table, names = (sections.get(name) or sections[name.decode()] for name in (b".symtab", b".strtab"))
    symbols = np.frombuffer(table, SYMBOL)
    starts = symbols["name"][(symbols["section"] == 0) & (symbols["name"] > 0)].tolist()
    return [names[start : names.index(b"\0", start)].decode() for start in starts]
