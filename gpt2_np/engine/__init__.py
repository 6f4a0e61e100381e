"""The fast paths: `model.ops` on every core, and compiled.

available     whether Numba is installed
threaded      `ops` in pieces on a pool of threads, with nothing compiled
kernels       the compiled twins of `ops`
layout        matrices transposed for the kernels: each output's weights are contiguous
mapped        parameters in the kernels' layout, in a file that many processes map
decode_step   one step of decoding in one compiled call
"""
