"""Training in NumPy.

optimizer   AdamW over a whole model; `update` is its formula, `kernels.adamw` the compiled twin
schedule    the learning rate over a run
gradient    one step's loss and gradients: micro-batches, clipping
"""

from .gradient import clipping, loss_and_gradients, norm
from .optimizer import AdamW, State

__all__ = ["AdamW", "State", "clipping", "loss_and_gradients", "norm"]
