"""The processor that Numba compiles for, which need not be the one that is here.

``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES`` and ``NUMBA_ENABLE_AVX`` choose another, and LLVM ends the process where code
asks for an instruction that its target doesn't have.
"""

from __future__ import annotations

from functools import lru_cache

from numba.core.registry import cpu_target


@lru_cache(maxsize=1)
def described() -> tuple[str, str, str]:
    """The target as Numba's code generator has it: triple, name of the processor, features."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return str(triple), str(name), str(features)


def has(feature: str) -> bool:
    """Whether the target is said to have a feature of LLVM's name ("avx512f").

    What a processor's name alone implies is not counted: without it, code is slower and just as right.
    """
    return said(described()[2], feature)


def said(features: str, feature: str) -> bool:
    """Whether a list such as "+avx2,-avx512f" switches a feature on; the last word counts."""
    words = [word for word in map(str.strip, features.split(",")) if word[1:] == feature]
    return words[-1:] == [f"+{feature}"]
