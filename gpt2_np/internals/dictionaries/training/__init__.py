"""Training dictionaries on activations that were captured to disk.

settings  the settings on which a run's result depends
vectors   a capture as shuffled batches of vectors, each a function of the seed and the step
losses    the losses of each architecture and their gradients, derived by hand
loop      steps, checkpoints and resumption
"""

from .loop import Report, train
from .settings import Settings

__all__ = ["Report", "Settings", "train"]
