"""Link-time optimisation: of a kernel and all the functions that it calls, only the kernel is optimised and generated.

Numba optimises each function and generates its machine code, links that into every caller, and does both again there: a
function at the end of a chain of five callers is compiled five times. Here the called functions stay as they are, and
LLVM optimises them once, when all of them are linked into the kernel. The bits are the same, in a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import codegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys  # type: ignore[attr-defined]  # numba has it, but doesn't list it

_open: list[Callable[[str], bool]] = []


@contextmanager
def optimised_once(chosen: Callable[[str], bool]) -> Iterator[None]:
    """Inside the block, let Numba optimise and generate only functions whose names are `chosen`, in every thread.

    All others are linked into the callers that are chosen, as they were written, each of them once; neither Python nor
    C can call them. Within another such block, that one's choice holds.
    """
    context = cpu_target.target_context
    rtsys.initialize(context)  # it calls functions that it compiles
    numbas = context.codegen()
    with global_compiler_lock:
        if _open:
            yield
            return
        _open.append(chosen)
        wrapper, c_wrapper, library = (
            context.create_cpython_wrapper,
            context.create_cfunc_wrapper,
            numbas._library_class,
        )

        def of_chosen(make: Callable[..., Any]) -> Callable[..., Any]:
            def made(one: Library, *arguments: Any, **settings: Any) -> Any:
                return make(one, *arguments, **settings) if one.whole else None

            return made

        def set_env(name: str, environment: Any) -> None:
            """Store a function's globals where its code reads them, if there is code."""
            if numbas._engine.get_global_value_address(name):
                type(numbas).set_env(numbas, name, environment)

        numbas._library_class, numbas.set_env = Library, set_env
        context.create_cpython_wrapper, context.create_cfunc_wrapper = of_chosen(wrapper), of_chosen(c_wrapper)
        try:
            yield
        finally:
            numbas._library_class = library
            del numbas.set_env, context.create_cpython_wrapper, context.create_cfunc_wrapper
            _open.clear()


class Library(codegen.JITCodeLibrary):
    """A function's code, which is linked with all that it calls, optimised and generated, if it is ``whole``.

    Else it stays as it was written. What is compiled later, outside of the block, may still link it.
    """

    def __init__(self, numbas: Any, name: str) -> None:
        super().__init__(numbas, name)
        self.whole = _open[0](name)

    def finalize(self) -> None:
        if self.whole:
            self._linking_libraries = called(self)
            super().finalize()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return int(super().get_pointer_to_function(name)) if self.whole else 0

    def _get_module_for_linking(self) -> Any:
        if self.whole or _open:
            return super()._get_module_for_linking()
        # Numba links only what a function calls itself, since that has already been linked with what it calls.
        complete = super()._get_module_for_linking().clone()
        for other in called(self):
            complete.link_in(other._get_module_for_linking(), preserve=True)
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
