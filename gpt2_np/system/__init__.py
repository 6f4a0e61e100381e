"""What the machine offers: files, memory, threads. Nothing here knows what a model is.

files     whole files or none, JSON that nobody vouches for, mapped tensors
memory    arrays aligned to a cache line or a large page, whose memory is used again
threads   the thread pool that NumPy's work is divided over, and BLAS's own threads
garbage   loading without garbage collection
cache     the folder for what can be made again
errors    an error in one line, without control characters
packages  whether the `decoders` that Python finds are ours
"""
