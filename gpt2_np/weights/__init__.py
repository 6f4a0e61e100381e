"""Checkpoints: finding, reading, writing, and reducing their precision.

hub             from a name to a folder: the bundled model, the official ones, a hub id, a path
header          the header of a safetensors file: the tensors that it holds, and where
load            from safetensors to parameters
save            from parameters to safetensors
panels          matrices packed as the kernels read them, in every precision
quantize        bfloat16, int8 and int4 matrices
other_weights   folders without a model.safetensors: which other files of weights they hold
"""
