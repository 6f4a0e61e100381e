"""Training dictionaries on activations that were captured to disk.

settings  what a run is: every number that its result depends on
vectors   a capture as shuffled batches of vectors, each a function of the seed and the step
losses    the losses of each architecture and their gradients, by hand
loop      steps, checkpoints, and going on where a run was left
"""

from .loop import Report, train
from .settings import Settings

__all__ = ["Report", "Settings", "train"]
