"""Gradients at every activation point: the forward pass's mirror image, in NumPy.

derivatives  the derivative of every operation in `ops`
activation_derivatives  those of the activation functions
operations   the protocol of the derivatives: the functions that `backward` calls
threaded     the derivatives on every core; `joined` is the forward pass that belongs to them
compiled     the derivatives with kernels where they pay; `joined_compiled` is the forward pass that belongs to them
products     matrix products in pieces on threads; `heads` has those of attention
backward     the backward pass, to be read beside `model.forward`
kept         the activations that the forward pass keeps for it, and their memory
edited       gradients through the edits of a run
metrics      the metrics whose gradients are taken
jacobians    Jacobians of the last residual stream with respect to each layer's
run          one forward and backward run: `Model.run_with_gradients`
check        any gradient against finite differences
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
