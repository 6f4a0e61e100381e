"""The check of any gradient against finite differences, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..display import Readable
from ..engine import threaded as ops
from ..model.edits import edits
from ..model.forward import forward
from ..model.params import Params, as_array, assemble, map_arrays, tensors
from ..model.taps import both, select
from .metrics import Metric
from .run import Ends, Ids, Runs, of_metric, padded, prepared, run_with_gradients

Array = np.ndarray

# The weights of f(x + step·h), step = −2 … 2, in the derivative of f at x. The error is O(h⁴). Fornberg 1988.
STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}


class GradientMismatch(ArithmeticError):
    """Raised when a gradient and its finite differences disagree."""


@dataclass(frozen=True, repr=False)
class GradientCheck(Readable):
    """The result of `check_gradient`: derivatives along some random directions, (directions,) each."""

    name: str
    gradient: Array
    finite_differences: Array

    @property
    def error(self) -> float:
        """The largest difference, relative to the largest derivative."""
        largest = max(float(np.abs(self.finite_differences).max()), float(np.abs(self.gradient).max()))
        difference = float(np.abs(self.gradient - self.finite_differences).max())
        return difference / largest if largest else 0.0


class Model(Runs, Protocol):
    """The interface of a model for the check: a run with gradients, and the same model with other parameters."""

    def with_params(self, params: Params) -> Model:
        """Return the same model with these parameters."""
        ...


def check_gradient(
    model: Model, ids: Ids, metric: Metric, name: str, *, directions: int = 3, tolerance: float = 1e-6, seed: int = 0
) -> GradientCheck:
    """Compare the gradient at a name with finite differences of the metric, along random directions, in float64.

    `name` is an activation's ("blocks.0.attn.hook_pattern"), or a parameter's official one ("h.0.attn.c_attn.weight").
    The whole activation, or parameter, is moved by ±h and ±2h along a direction, where h is a thousandth of its size,
    and the sum of the metric is measured each time. Reduced-precision weights count as the numbers that they represent.

    `GradientMismatch`, with the size of the difference, is raised where the two differ by more than `tolerance` of the
    larger (or by more than rounding for a derivative of 0); a kink of the activation function within ±2h can also cause
    it. ``ValueError`` for an unknown name, or one that matches several activations.

    Examples:
        >>> from gpt2_np import GPT2
        >>> from gpt2_np.gradients import check_gradient, cross_entropy
        >>> model = GPT2.from_pretrained(dtype="float64")
        >>> check_gradient(model, [5, 6, 7], cross_entropy(), "blocks.0.attn.hook_z").error < 1e-6
        True
    """
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions}")
    metric = prepared(metric, model)
    batch, lengths = padded(model, ids)
    exact = model.with_params(in_float64(model.params))
    named = tensors(exact.params)
    of_parameter = name in named
    (point,) = (name,) if of_parameter else _one(select(name, model.config), name)
    run = run_with_gradients(exact, ids, metric, () if of_parameter else point, parameters=of_parameter)
    gradient = tensors(run.params)[name] if run.params is not None else run.grads[point]
    x = named[name] if of_parameter else run.cache[point]

    def total(change: Array) -> float:
        params, tap = exact.params, exact.tap
        if of_parameter:
            params = assemble(named | {name: x + change}, exact.config)
        else:
            tap = both(tap, edits({point: lambda value: value + change}, exact.config))
        return float(of_metric(metric, forward(params, exact.config, batch, ops=ops, tap=tap), batch, lengths)[0].sum())

    random, finite = np.random.default_rng(seed), x[np.isfinite(x)]
    step = 1e-3 * (float(np.sqrt((finite * finite).mean())) or 1.0)
    expected, got = np.empty(directions), np.empty(directions)
    for number in range(directions):
        direction = random.standard_normal(x.shape)
        direction = direction if of_parameter else Ends(lengths)(point, direction)
        expected[number] = sum(weight * total(at * step * direction) for at, weight in STENCIL.items()) / step
        got[number] = (gradient * direction).sum()
    result = GradientCheck(name, got, expected)
    noise = 1e-12 / step * (1 + float(np.abs(run.value).sum()))
    if np.abs(got - expected).max() > tolerance * max(np.abs(got).max(), np.abs(expected).max()) + noise:
        raise GradientMismatch(
            f"the gradient of {name} along {directions} random directions is {_numbers(got)}, "
            f"finite differences are {_numbers(expected)}: they differ by {result.error:.1e} of the larger"
        )
    return result


def in_float64(params: Params) -> Params:
    """Return the same parameters in float64; reduced-precision ones become the numbers that they represent."""

    exact = map_arrays(params, lambda weight: as_array(weight).astype(np.float64))
    return exact if isinstance(params.lm_head, np.ndarray) else exact._replace(lm_head=as_array(exact.lm_head).T)


def _one(names: list[str], asked: str) -> list[str]:
    if len(names) != 1:
        raise ValueError(f"name must mean one activation, got {asked!r}, which means {len(names)}")
    return names


def _numbers(x: Array) -> str:
    return ", ".join(f"{one:.9g}" for one in x)
