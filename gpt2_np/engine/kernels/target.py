"""The processor that Numba compiles for, which may differ from the host.

``NUMBA_CPU_NAME``, ``NUMBA_CPU_FEATURES`` and ``NUMBA_ENABLE_AVX`` select another one, and LLVM aborts the process if
code uses an instruction that the target lacks.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import lru_cache

ARCH_REQ_XCOMP_PERM, TILE_DATA, ARCH_PRCTL = 0x1023, 18, 158  # Linux's numbers, for x86-64


@lru_cache(maxsize=1)
def described() -> tuple[str, str, str]:
    """Return the target of Numba's code generator: triple, processor name, features."""
    from numba.core.registry import cpu_target  # code from object files needs no Numba

    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return str(triple), str(name), str(features)


@lru_cache(maxsize=1)
def tiles() -> bool:
    """Tell whether code may use AMX's tile registers: the target has them, and Linux lets this process use them.

    Linux denies them to a process that hasn't asked, since each thread's registers grow by 8 KB. Children inherit the
    permission.
    """
    return has("amx-tile") and has("amx-int8") and tiles_granted()


@lru_cache(maxsize=1)
def tiles_granted() -> bool:
    """Ask Linux for AMX's tile registers, and tell whether this process may use them."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return False
    try:
        call = ctypes.CDLL(None).syscall
    except (OSError, AttributeError):
        return False
    numbers = (ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, TILE_DATA)
    return bool(call(*map(ctypes.c_long, numbers)) == 0)


def has(feature: str) -> bool:
    """Tell whether the target lists a feature by LLVM's name ("avx512f").

    A feature that only the processor's name implies is not counted: the code is then slower, but correct.
    """
    return said(described()[2], feature)


def said(features: str, feature: str) -> bool:
    """Tell whether a list such as "+avx2,-avx512f" switches a feature on; its last mention counts."""
    words = [word for word in map(str.strip, features.split(",")) if word[1:] == feature]
    return words[-1:] == [f"+{feature}"]
