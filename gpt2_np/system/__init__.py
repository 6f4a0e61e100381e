"""Files, memory and threads: what the machine offers. Nothing here knows what a model is.

files         atomic writes, JSON from untrusted files, mapped tensors
memory        arrays aligned to a cache line or a large page, whose memory is reused
threads       the thread pool for NumPy's work, and BLAS's own threads
garbage       loading without garbage collection
cache_folder  the folder for files that can be made again
errors        an error in one line, without control characters
packages      whether the installed `decoders` is this project's
"""
