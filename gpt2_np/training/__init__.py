"""Training in NumPy: `train` a model on texts; or AdamW, gradients and schedules for a loop of your own.

optimizer   AdamW over a whole model; `update` is its formula, `kernels.adamw` the compiled twin
schedule    the learning rate over a run
gradient    the loss and the gradients of one step: micro-batches, clipping
data        from texts to rows of ids
settings    the settings on which a run's result depends
low_rank    LoRA adapters, in PEFT's files
initial     initial parameters
tree        the arrays of parameters, or of nested dicts and tuples, as a list
loop        the training run; `learner` holds what it learns, `checkpoint` saves it, `curve` draws its losses, `pace`
            tells how long it takes
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
