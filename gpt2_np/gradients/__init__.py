"""Gradients at every name: the forward pass's mirror image, in NumPy.

derivatives  the derivative of every operation, beside `ops`; `activations` holds those of the activations
threaded     the same on every core; `joined` is the forward pass that goes with it
operations   what `backward` needs of an implementation of them, as a type
compiled     the same with kernels where they pay; `joined_compiled` is the forward pass that goes with it
products     matrix products in pieces on threads; `heads` holds attention's
backward     the model backwards, beside `model`
kept         what the forward pass leaves for it, and how much memory that takes
edited       edits on the way back
metrics      what gradients are of
jacobians    how the last stream depends on each layer's, all of it at once
run          forwards and backwards: `Model.run_with_gradients`
check        any of them against finite differences
"""

from ..model.edits import Edit
from .check import check_gradient
from .metrics import Metric, cross_entropy, kl_divergence, log_probability, logit_difference
from .run import GradientRun

__all__ = [
    "Edit",
    "GradientRun",
    "Metric",
    "check_gradient",
    "cross_entropy",
    "kl_divergence",
    "log_probability",
    "logit_difference",
]
