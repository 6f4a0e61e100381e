"""Types of the objects that Numba passes to code that emits instructions: context, LLVM's builder, values."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite.ir import IRBuilder as Builder
from llvmlite.ir import Value
from numba.core.base import BaseContext as Context
from numba.core.typing.templates import Signature

__all__ = ["Builder", "Context", "Signature", "Value", "Values"]

Values = Sequence[Value]
