"""The functions of Numba that compiled code calls while it runs, loaded without Numba's compiler.

Nearly all of Numba is the compiler, which takes longer to load than anything else. Code that an earlier process
compiled (`object_code`) needs only some extension modules: the threading layer, reference counts, and C functions. They
are loaded under their own names, so Numba, if it is loaded later, uses the same ones.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

from ...system.threads import cores

# Layers by Numba's names. TBB's needs a library of its own, which Numba searches for; it is left to Numba.
LAYERS = {"omp": "np.ufunc.omppool", "workqueue": "np.ufunc.workqueue"}
OF_A_LAYER = (
    "allocate_sched deallocate_sched do_scheduling_signed do_scheduling_unsigned get_num_threads "
    "get_parallel_chunksize get_sched_size get_thread_id set_num_threads set_parallel_chunksize"
).split()


def folder() -> Path:
    """Return the folder of the package numba, which is searched for, not loaded. ``ImportError`` if there is none."""
    found = find_spec("numba")
    if found is None or not found.submodule_search_locations:
        raise ImportError("there is no package named numba")
    return Path(found.submodule_search_locations[0])


def extension(name: str) -> ModuleType:
    """Load an extension module by its dotted name within numba. ``ImportError`` if it isn't there."""
    full = f"numba.{name}"
    if full in sys.modules:
        return sys.modules[full]
    finder = FileFinder(str(folder().joinpath(*name.split(".")[:-1])), (ExtensionFileLoader, EXTENSION_SUFFIXES))
    spec = finder.find_spec(full)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no extension module named {full}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return sys.modules.setdefault(full, module)


def symbols(layer: str) -> dict[str, int]:
    """Return the addresses of all that compiled code may call or refer to, by the names that it uses."""
    threads = extension(LAYERS[layer])
    addresses: dict[str, int] = {"numba_parallel_for": threads.parallel_for}
    addresses |= {name: getattr(threads, name) for name in OF_A_LAYER}
    addresses |= {f"numba_{name}": where for name, where in extension("_helperlib").c_helpers.items()}
    for name, where in extension("core.runtime._nrt_python").c_helpers.items():
        addresses[name if name.startswith("_") else f"NRT_{name}"] = where
    for one in vars(builtins).values():
        if isinstance(one, type) and issubclass(one, BaseException):
            addresses[f"PyExc_{one.__name__}"] = id(one)
    return addresses


@cache
def start(layer: str) -> None:
    """Start the layer's threads, as many as Numba would start. ``ValueError`` if the environment names no number."""
    number = started()
    threads = extension(LAYERS[layer])
    for function in (threads.launch_threads, threads.set_num_threads):
        ctypes.CFUNCTYPE(None, ctypes.c_int)(function)(number)
    running.append(layer)


@cache
def started() -> int:
    """Return how many threads `start` starts: as many as Numba would. ``ValueError`` if the environment is wrong."""
    number = int(os.environ.get("NUMBA_NUM_THREADS") or cores())
    if number < 1:
        raise ValueError(f"NUMBA_NUM_THREADS must be at least 1, got {number}")
    return number


running: list[str] = []  # the layer whose threads were started here, not by Numba


def limit(number: int) -> None:
    """Let the calling thread's parallel loops use so many threads at most, where `start` has started them."""
    ctypes.CFUNCTYPE(None, ctypes.c_int)(extension(LAYERS[running[0]]).set_num_threads)(number)


def counter(layer: str) -> Callable[[], int]:
    """Return a layer's function that counts the threads of the calling thread's loops, for when they were started."""
    return ctypes.CFUNCTYPE(ctypes.c_int)(extension(LAYERS[layer]).get_num_threads)
