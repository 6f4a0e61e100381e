"""The replacements of plain gradients: relevance rules, dropped layers, and a recomputed softmax."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...display import Readable
from ...gradients.activation_derivatives import DERIVATIVES
from ...model import ops
from ...model.config import Config
from ...model.params import Params
from ...session.model import Model

Array = np.ndarray


def relevance(model: Model) -> Relevance:
    """RelP's rules as a tap of the backward pass; see `Relevance`.

    ``ValueError`` for an activation function that isn't 0 at 0, which has no ratio there, and for a model with edits
    around its activation function.
    """
    name, at_zero = model.config.activation_function, np.zeros(1)
    act = tuple(np.asarray(one, np.float64) for one in model.params.h[0].mlp.act)
    if abs(float(ops.activate(at_zero, name, act)[0])) > 1e-12:
        raise ValueError(f"relp needs an activation function that is 0 at 0, got {name!r}")
    for layer in range(model.config.n_layer):
        for point in (f"blocks.{layer}.mlp.pre", f"blocks.{layer}.mlp.post"):
            if model.tap.wants(point):
                raise ValueError(f"relp replaces the derivative of the activation function, so {point} can't be edited")
    return Relevance(model.params, model.config)


class Relevance(Readable):
    """Relevance patching (Jafari et al. 2025, "RelP", table 1): gradients with the nonlinear parts held constant.

    Layer norm's scale is held (the LN-rule of Ali et al. 2022), so is the attention pattern (their AH-rule), and the
    activation f counts as its ratio: where the derivative has f′(x), this has f(x)/x (the identity rule). GPT-2's
    layers have no products of two activations but that of pattern and values, so the rule that halves a gate's has no
    place. With biases of 0 relevance is conserved: Σ activation · coefficient is the metric, at every cut.
    """

    def __init__(self, params: Params, config: Config, pre: Mapping[str, Array] | None = None) -> None:
        self.params, self.config, self.pre = params, config, pre or {}
        self.of_post: Array | None = None

    def given(self, values: Mapping[str, Array]) -> Relevance:
        """Return the tap of one backward pass whose forward pass left these activations."""
        pre = {name: x for name, x in values.items() if name.endswith("mlp.pre")}
        return Relevance(self.params, self.config, pre)

    def wants(self, name: str) -> bool:
        return name.endswith((".scale", "attn.pattern"))

    def __call__(self, name: str, x: Array) -> Array:
        if self.wants(name):
            return np.zeros_like(x)
        if name.endswith("mlp.post"):
            self.of_post = x
        if name.endswith("mlp.pre") and self.of_post is not None:
            layer = int(name.split(".")[1])
            return self.of_post * ratio(self.pre[name], self.config, self.params.h[layer].mlp.act)
        return x


def ratio(x: Array, config: Config, parameters: tuple[Array, ...] = ()) -> Array:
    """Return f(x) / x, and at 0 its limit f′(0), where f is the configuration's activation function: (…, F)."""
    name = config.activation_function
    zero = x == 0
    slope = ops.activate(x, name, parameters) / np.where(zero, 1, x)
    if zero.any():
        slope = np.where(zero, DERIVATIVES[name](x, *parameters), slope)
    return slope.astype(x.dtype, copy=False)


class Dropped(Readable):
    """A tap of the backward pass that blocks the gradient into one layer's output, a different layer in each row.

    Kramár et al. 2024, "AtP*", section 3.1.2 (GradDrop): where a direct and an indirect effect cancel, one of them
    goes through some layer, and without that layer the other is seen. ``layers`` says which, (B,).
    """

    def __init__(self, layers: Array) -> None:
        self.layers = layers

    def wants(self, name: str) -> bool:
        return False

    def __call__(self, name: str, x: Array) -> Array:
        if not name.endswith(("attn_out", "mlp_out")):
            return x
        dropped = self.layers == int(name.split(".")[1])
        return np.where(dropped[:, None, None], 0, x).astype(x.dtype, copy=False) if dropped.any() else x


# ---- a recomputed softmax: the pattern after a query or a key is exchanged ------------------------------------------
# Kramár et al. 2024, section 3.1.1. A saturated softmax has next to no derivative, however much an exchange moves it.


def query_effect(gradient: Array, pattern: Array, scores: Array) -> Array:
    """Each query exchanged: Σ over keys of ∂L/∂P times what the pattern changes by.

    `scores` are those of the exchanged queries with the keys as they were; gradient (…, H, T, S), the other two
    (H, T, S) or with leading axes that broadcast → (…, T, H).
    """
    effect: Array = (gradient * (ops.softmax(scores) - pattern)).sum(axis=-1)
    return effect.swapaxes(-1, -2)


def key_effect(gradient: Array, pattern: Array, scores: Array, exchanged: Array) -> Array:
    """Each key exchanged alone: Σ over queries of ∂L/∂P times what their patterns change by: (…, S, H).

    With p the weight of the key, d the change of its score and G = Σ P·∂L/∂P of a query, the new weight is
    p·eᵈ / (1 + p·(eᵈ − 1)) and all others shrink alike, so the sum over keys is (∂L/∂P_key − G) · u/(1 + u), where
    u = p·(eᵈ − 1): all keys of all queries without a softmax each. Only where next to nothing is left of a query's
    weights without the key is its softmax done again. Gradient (…, H, T, S), the other three (H, T, S).
    """
    seen = np.isfinite(scores)
    logs = np.where(seen, scores, 0) - _log_sum_exp(scores)
    change = np.where(seen, exchanged, 0) - np.where(seen, scores, 0)
    u = np.where(seen, np.exp(np.minimum(logs + change, 700)) - np.exp(logs), 0)
    mean = (gradient * pattern).sum(axis=-1, keepdims=True)
    lost = 1 + u < 1e-6
    effect: Array = (gradient - mean) * (u / np.where(lost, 1, 1 + u))
    if lost.any():
        head, query, key = np.nonzero(lost)
        rows = scores[head, query]
        rows[np.arange(len(rows)), key] = exchanged[lost]
        effect[..., head, query, key] = (
            gradient[..., head, query, :] * (ops.softmax(rows) - pattern[head, query])
        ).sum(-1)
    return effect.sum(axis=-2).swapaxes(-1, -2)


def _log_sum_exp(scores: Array) -> Array:
    top = scores.max(axis=-1, keepdims=True)
    logs: Array = top + np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))
    return logs
