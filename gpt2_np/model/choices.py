"""What a model is loaded with, by name; without an import, since the command line reads it before NumPy is there."""

FULL = ("float32", "float64")
REDUCED = ("bfloat16", "int8", "int4")
DTYPES = FULL + REDUCED  # what weights may be kept in
BACKENDS = ("numba", "numpy")  # which path runs: the compiled kernels or the readable operations
