"""The fast paths: `model.ops` on every core, and compiled.

available     whether Numba is there
threaded      `ops` in pieces on a pool of threads, nothing compiled
kernels       the compiled twins of `ops`
layout        matrices transposed for the kernels: each output's weights are contiguous
mapped        parameters as the kernels read them, in a file that many processes map
decode_step   one step of decoding in one compiled call
"""
