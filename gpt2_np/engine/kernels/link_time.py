"""Link-time optimisation: of a kernel and all the functions that it calls, only the kernel is optimised and generated.

Numba optimises each function and generates its machine code, links that into every caller, and does both again there: a
function at the end of a chain of five callers is compiled five times. Here the called functions stay as they are, and
LLVM optimises them once, when all of them are linked into the kernel. The bits are the same, in a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from numba.core import codegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys  # type: ignore[attr-defined]  # numba has it, but doesn't list it

_chosen: list[Callable[[str], bool]] = []  # the choices of the blocks that are open, the innermost last


@contextmanager
def optimised_once(chosen: Callable[[str], bool]) -> Iterator[None]:
    """Inside the block, let Numba optimise and generate only functions whose names are `chosen`.

    All others are linked into the callers that are chosen, as they were written, each of them once; neither Python nor
    C can call them. Other threads' compilations wait until the block ends.
    """
    context = cpu_target.target_context
    rtsys.initialize(context)  # it calls functions that it compiles
    with global_compiler_lock, nullcontext() if _chosen else _libraries(context):
        _chosen.append(chosen)
        try:
            yield
        finally:
            _chosen.pop()


@contextmanager
def _libraries(context: Any) -> Iterator[None]:
    """Let Numba make `Library` of whatever it compiles inside the block."""
    numbas, makes = context.codegen(), type(context)  # each function has a context of its own
    library, wrapper, c_wrapper = numbas._library_class, makes.create_cpython_wrapper, makes.create_cfunc_wrapper

    def if_whole(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(its: Any, one: Any, *arguments: Any, **settings: Any) -> None:
            if getattr(one, "whole", True):
                make(its, one, *arguments, **settings)

        return made

    def set_env(name: str, environment: Any) -> None:
        """Store a function's globals where its code reads them, if there is code."""
        if numbas._engine.get_global_value_address(name):
            type(numbas).set_env(numbas, name, environment)

    numbas._library_class, numbas.set_env = Library, set_env
    makes.create_cpython_wrapper, makes.create_cfunc_wrapper = if_whole(wrapper), if_whole(c_wrapper)
    try:
        yield
    finally:
        del numbas.set_env
        numbas._library_class, makes.create_cpython_wrapper, makes.create_cfunc_wrapper = library, wrapper, c_wrapper


class Library(codegen.JITCodeLibrary):
    """A function's code, which is linked with all that it calls, optimised and generated, if it is ``whole``.

    Else it stays as it was written. What is compiled later, outside of the block, may still link it.
    """

    def __init__(self, numbas: Any, name: str) -> None:
        super().__init__(numbas, name)
        self.whole = _chosen[-1](name)

    def finalize(self) -> None:
        if self.whole:
            self._linking_libraries = called(self)
            super().finalize()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return int(super().get_pointer_to_function(name)) if self.whole else 0

    def _get_module_for_linking(self) -> Any:
        if self.whole or _chosen:
            return super()._get_module_for_linking()
        # Numba links only what a function calls itself, since that has already been linked with what it calls.
        module = codegen.JITCodeLibrary._get_module_for_linking
        complete = module(self).clone()
        for other in called(self):
            complete.link_in(module(other), preserve=True)
        return complete


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
