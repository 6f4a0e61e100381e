"""Checkpoints: finding, reading, writing, and reducing their precision.

hub             a name becomes a folder: the bundled model, the official ones, a hub id, a path
header          what a safetensors file holds, and where
load            safetensors become parameters
save            parameters become safetensors
panels          how the kernels read a matrix: packed, in every precision
quantize        bfloat16, int8 and int4 matrices
other_weights   what a folder without a model.safetensors holds instead
"""
