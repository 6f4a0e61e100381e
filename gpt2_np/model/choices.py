"""The names of dtypes and backends. This file doesn't import NumPy, because the command line reads it before NumPy."""

from typing import Literal

FULL = ("float32", "float64")
REDUCED = ("bfloat16", "int8", "int4")
DTYPES = FULL + REDUCED  # what weights may be kept in
# Which path runs: the compiled kernels or the readable operations.
BACKENDS: tuple[Literal["numba"], Literal["numpy"]] = ("numba", "numpy")
