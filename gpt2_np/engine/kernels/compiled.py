"""The decorator of every kernel: it compiles the kernel for its types at once, and caches the code for later processes.

Numba's own cache identifies a kernel by its file alone. Here the key covers everything that the code depends on: the
sources of its module and of all imported ones (`sources`), the compilers' versions, and the target (`target`).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.cloudpickle import loads
from numba.core import config
from numba.core.caching import NullCache
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys  # type: ignore[attr-defined]  # numba has it, but doesn't list it
from numba.core.serialize import dumps

from ...system.garbage import without_garbage_collection
from . import code_cache, link_time, sources, target

# With NUMBA_DISABLE_JIT kernels run as plain Python, and nothing may be built for the compiler.
PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
# Numba's settings that change the generated code.
SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML")
ENTRY = "call_"  # the start of the name of each function with C's calling convention


def compiled(signature: Any, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate as ``numba.njit(signature, **settings)`` does, and cache the compiled code between processes."""

    def decorate(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**settings)(function)
        if PLAIN:
            return kernel
        kernel._cache = KernelCache(function)
        with _once(lambda name: name == function.__qualname__):
            kernel.compile(signature)
        kernel.disable_compile()
        return kernel

    return decorate


def entry(signature: Any, name: str, **settings: Any) -> Callable[[Callable[..., Any]], CFunc]:
    """Decorate as ``numba.cfunc(signature, **settings)`` does: C's calling convention, which needs no Numba to call.

    The code is cached as that of `compiled`. The `name` tells functions of the same source apart: symbols are named
    after functions, and code from the cache keeps the names that it was compiled with.
    """

    def decorate(function: Callable[..., Any]) -> CFunc:
        function.__qualname__ = ENTRY + name
        made = CFunc(function, (signature.args, signature.return_type), {}, {"nopython": True, **settings})
        made._cache = KernelCache(function, name)  # type: ignore[attr-defined]  # numba's annotations lack it
        with _once(lambda symbol: symbol.startswith(ENTRY)):
            made.compile()
        return made

    return decorate


@contextmanager
def _once(chosen: Callable[[str], bool]) -> Iterator[None]:
    """Compile inside the block as `link_time.optimised_once` does, without garbage collection.

    Where nothing is stored, whoever decided so has also chosen what is optimised.
    """
    with without_garbage_collection(), link_time.optimised_once(chosen) if KernelCache.stored else nullcontext():
        yield


class KernelCache(NullCache):
    """The cache of one function's code, which Numba consults before it compiles and informs afterwards.

    A function whose closure holds another one needs a `name`: a function's repr tells its address. Nothing is read or
    written unless `stored`.
    """

    stored = True

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        self.function, self.name = function, name

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the function compiled for these types; None if it must be compiled."""
        if not self.stored:
            return None
        # Finished code needs only this of Numba's context; the compiler's tables would take a fifth of a second.
        rtsys.initialize(target_context)
        try:
            path = self._path(signature)
            code_cache.check(path.parent.parent)
        except OSError:  # `save_overload` reports it
            return None
        content = code_cache.read(path)
        if content is None:
            code_cache.announce()
            return None
        code_cache.used(path.parent)
        try:
            return CompileResult._rebuild(target_context, *loads(content))
        except Exception:  # intact, but not readable by this version of Numba
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Store compiled code; if that fails, one line on stderr says so."""
        if result.library.has_dynamic_globals or not self.stored:
            return
        place = "the user's cache"
        try:
            path = self._path(signature)
            place = str(path.parent.parent)
            code_cache.write(path, dumps(result._reduce()))
        except OSError as error:
            code_cache.say_uncached(place, error.strerror or str(error))

    def _path(self, signature: Any) -> Path:
        """Return FOLDER/MODULE-KEY/FUNCTION-TYPES, where the key covers everything that the code depends on."""
        function = self.function
        named = self.name or [cell.cell_contents for cell in function.__closure__ or ()]
        types = repr((signature, named, function.__code__.co_code)).encode()
        name = f"{function.__name__}-{hashlib.sha256(types).hexdigest()[:16]}"
        return folder(function.__code__.co_filename) / name


@cache
def folder(file: str) -> Path:
    """Return the folder that keeps the code of a source file's functions. ``OSError`` if it can't be determined."""
    made_from = (sources.digest(Path(file)), made_by())
    key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
    return code_cache.place(getattr(config, "CACHE_DIR", "")) / f"{Path(file).stem}-{key}"


@lru_cache(maxsize=1)
def made_by() -> tuple[Any, ...]:
    """Return the compilers' versions, their target and their settings."""
    versions = (numba.__version__, llvmlite.__version__, sys.version)
    return (*versions, *target.described(), target.tiles(), *(str(getattr(config, name, None)) for name in SETTINGS))
