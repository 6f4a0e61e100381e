"""The decorator of every kernel: compiled for its types at once, and kept for the next process.

Numba's own cache knows a kernel by its file alone. Here it is known by all that its code is made from: the sources of
its module and of those that it imports (`sources`), the versions of the compilers, and the target (`target`).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.cloudpickle import loads
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys  # type: ignore[attr-defined]  # numba has it, but doesn't list it
from numba.core.serialize import dumps

from . import code_cache, sources, target

# Kernels run as plain Python when Numba is told to: then nothing may be built for the compiler.
PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
# Settings of Numba's that change the code it makes.
SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML")


def compiled(signature: Any, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """As ``numba.njit(signature, **settings)``, the compiled code being kept between processes."""

    def decorate(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**settings)(function)
        if PLAIN:
            return kernel
        kernel._cache = KernelCache(function)
        kernel.compile(signature)
        kernel.disable_compile()
        return kernel

    return decorate


class KernelCache(NullCache):
    """What Numba asks for the code of one function before it compiles it, and tells it after."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The function compiled for these types; None where it must be compiled."""
        # All of Numba's context that finished code needs; its tables, for who compiles, take a fifth of a second.
        rtsys.initialize(target_context)
        try:
            path = self._path(signature)
            code_cache.check(path.parent.parent)
        except OSError:  # told when the code could not be saved
            return None
        content = code_cache.read(path)
        if content is None:
            return None
        code_cache.used(path.parent)
        try:
            return CompileResult._rebuild(target_context, *loads(content))
        except Exception:  # whole, yet not what this Numba understands
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled; where that can't be, one line on stderr says so."""
        if result.library.has_dynamic_globals:
            return
        place = "the user's cache"
        try:
            path = self._path(signature)
            place = str(path.parent.parent)
            code_cache.write(path, dumps(result._reduce()))
        except OSError as error:
            code_cache.say_uncached(place, error.strerror or str(error))

    def _path(self, signature: Any) -> Path:
        """FOLDER/MODULE-KEY/FUNCTION-TYPES, the key being that of all that the code is made from."""
        function = self.function
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        types = repr((signature, cells, function.__code__.co_code)).encode()
        name = f"{function.__name__}-{hashlib.sha256(types).hexdigest()[:16]}"
        return folder(function.__code__.co_filename) / name


@cache
def folder(file: str) -> Path:
    """Where the code of a source file's functions is kept. ``OSError`` where it can't be known."""
    made_from = (sources.digest(Path(file)), made_by())
    key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
    return code_cache.place(getattr(config, "CACHE_DIR", "")) / f"{Path(file).stem}-{key}"


@lru_cache(maxsize=1)
def made_by() -> tuple[Any, ...]:
    """The compilers' versions, what they compile for, and how."""
    versions = (numba.__version__, llvmlite.__version__, sys.version)
    return (*versions, *target.described(), target.tiles(), *(str(getattr(config, name, None)) for name in SETTINGS))
