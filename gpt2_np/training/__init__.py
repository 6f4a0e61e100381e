"""Training in NumPy: `train` a model on texts; or AdamW, gradients and schedules for a loop of your own.

optimizer   AdamW over a whole model; `update` is its formula, `kernels.adamw` the compiled twin
schedule    the learning rate over a run
gradient    one step's loss and gradients: micro-batches, clipping
data        texts to rows of ids           settings    all that a run's result depends on
low_rank    adapters, in PEFT's files      initial     parameters to begin with
loop        the run; `learner` is what learns in it, `checkpoint` what is left of it, `curve` its picture
"""

from .gradient import clipping, loss_and_gradients, norm
from .initial import initial
from .loop import Report, Stopped, train
from .low_rank import Adapters, with_adapters
from .optimizer import AdamW, State
from .settings import Settings

__all__ = [
    "AdamW",
    "Adapters",
    "Report",
    "Settings",
    "State",
    "Stopped",
    "clipping",
    "initial",
    "loss_and_gradients",
    "norm",
    "train",
    "with_adapters",
]
