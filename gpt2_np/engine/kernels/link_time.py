"""Link-time optimisation of the fused forward pass, in a process of its own.

Numba optimises each function and generates its machine code, links that into every caller, and does both again there: a
function at the end of a chain of five callers is compiled five times. Here the called functions stay as they are, and
LLVM optimises them once, when all of them are linked into the forward pass. The bits are the same, in a third of the
time. Only the forward pass can be called then, so this happens in another process, which calls nothing. The object file
that it writes is what `object_code` links.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ...system.garbage import without_garbage_collection
from . import object_code

# The new process finds modules where this one does, whose first folder may not be the working directory.
COMMAND = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import write; write(*sys.argv[2:])"


def object_file(code: str, head: str) -> bytes | None:
    """Compile `fused.forward` for weights of these dtypes in another process, and return the object file with its
    header; None if that isn't possible here, and Numba must compile it in this process.
    """
    if not os.path.basename(sys.executable or "").startswith("python"):  # a program that embeds Python
        return None
    command = [sys.executable, "-c", COMMAND, json.dumps(sys.path), code, head]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def write(code: str, head: str) -> None:
    """Compile the forward pass in this process, which can call no compiled function from then on, and write the object
    file to stdout.
    """
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Numba would load it, for products that nothing here needs
    with without_garbage_collection():
        optimise_once()
        from . import fused
        from .threads import layer

        made = fused.forward(code, head)
    _, _, (machine_code, _) = made._library.serialize_using_object_code()
    sys.stdout.buffer.write(object_code.with_header(machine_code, made.native_name, layer()))


def optimise_once() -> None:
    """Let Numba, in this process, optimise and generate only functions of `compiled.entry`.

    All others are linked into the entry as they were written, each of them once, and have no wrapper by which Python or
    C could call them. Nothing is read from Numba's cache or stored in it.
    """
    from numba.core import codegen
    from numba.core.registry import cpu_target
    from numba.core.runtime import rtsys  # type: ignore[attr-defined]  # numba has it, but doesn't list it

    from . import compiled

    context = cpu_target.target_context
    rtsys.initialize(context)  # it calls functions that it compiles
    numbas = context.codegen()

    class Library(codegen.JITCodeLibrary):
        """A function's code, which is linked with what it calls, optimised and generated if it is an entry."""

        def finalize(self) -> None:
            if self._entry():
                self._linking_libraries = called(self)
                super().finalize()
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            return int(super().get_pointer_to_function(name)) if self._entry() else 0

        def _entry(self) -> bool:
            return self.name.startswith(compiled.ENTRY)

    def set_env(name: str, environment: Any) -> None:
        """Store a function's globals where its code reads them, if there is code."""
        if numbas._engine.get_global_value_address(name):
            type(numbas).set_env(numbas, name, environment)

    wrapper = context.create_cfunc_wrapper

    def create_cfunc_wrapper(library: Any, *arguments: Any) -> None:
        """Give an entry its C calling convention: no other function is called from outside."""
        if library._entry():
            wrapper(library, *arguments)

    context.create_cpython_wrapper, context.create_cfunc_wrapper = ignored, create_cfunc_wrapper
    numbas._library_class, numbas.set_env = Library, set_env
    compiled.KernelCache.stored = False


def called(library: Any) -> list[Any]:
    """Return the libraries of all functions that this one's function calls, directly or not, callers first."""
    found: dict[Any, None] = {}

    def add(one: Any) -> None:
        for other in reversed(one._linking_libraries):
            if other not in found:
                add(other)
                found[other] = None

    add(library)
    return list(found)[::-1]


def ignored(*arguments: Any, **settings: Any) -> None:
    """Do nothing."""
