"""GPT-2's backward pass: unembedding, the blocks from last to first, embedding. Read it beside `forward`, line by line.

Every function mirrors the forward function of the same name: the same steps in reverse order, with gradients in place
of values. `tap` receives the gradient of an activation under the activation's name, and what it returns is propagated.
Where a value is used twice (the residual stream passes a block and enters its norm), its gradient is the sum of the two
gradients that come back. `derivatives` holds the formulas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..display import Readable
from ..model import params as P
from ..model.arrays import Array
from ..model.config import Config
from ..model.forward import attention_scale
from ..model.taps import Tap, no_tap, with_prefix
from . import derivatives as readable
from .kept import Kept, Values
from .operations import Derivatives


def backward(
    params: P.Params,
    config: Config,
    ids: Array,
    gradient: Array,
    kept: Kept,
    *,
    derivatives: Derivatives = readable,
    tap: Tap = no_tap,
    parameters: bool = False,
    token_type_ids: Array | None = None,
) -> P.Params | None:
    """Propagate the gradient of the logits, (B, T, V), back to everything that they were computed from.

    `kept` was the tap of the forward pass of the same (B, T) ids. `derivatives` is the implementation: the module
    `derivatives` or its twin `threaded`. `tap` receives every gradient and may replace it. With `parameters` the result
    holds the parameters' gradients; a tied ``wte`` gets both shares, from embedding and from unembedding. The dtype is
    the parameters'.
    """
    d, learned, values = derivatives, Learned(parameters), kept.values()
    head = "wte.weight" if params.lm_head is params.wte else "lm_head.weight"

    g = tap("unembed", gradient)
    del gradient  # as large as the logits, so it is freed as soon as it was used
    learned(head, lambda: d.unembed_parameters(g, values["ln_final.out"]))
    g = d.unembed(g, params.lm_head)
    g = layer_norm(
        g, params.ln_f, values.with_prefix("ln_final."), d, with_prefix(tap, "ln_final."), learned.with_prefix("ln_f.")
    )
    g = in_place(g, ids.shape[1])
    for layer in reversed(range(config.n_layer)):
        of_layer, prefix = kept.block(layer), f"blocks.{layer}."
        g = block(
            g, params.h[layer], config, layer, of_layer, d, with_prefix(tap, prefix), learned.with_prefix(f"h.{layer}.")
        )
    if token_type_ids is not None:
        learned.rows("wte.weight", params.wte, d.look_up, g, token_type_ids)
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    learned.rows("wpe.weight", params.wpe, d.look_up, tap("pos_embed", g), positions)
    learned.rows("wte.weight", params.wte, d.look_up, tap("embed", g), ids)
    return P.assemble(learned.tensors, config) if parameters else None


def in_place(gradient: Array, T: int) -> Array:
    """Return the gradient of all T positions, (B, T, D): 0 but at the last one, where it is that one's, (B, 1, D)."""
    if gradient.shape[1] == T:
        return gradient
    whole = np.zeros((gradient.shape[0], T, gradient.shape[2]), gradient.dtype)
    whole[:, -1:] = gradient
    return whole


def block(
    gradient: Array, p: P.Block, config: Config, layer: int, values: Values, d: Derivatives, tap: Tap, learned: Learned
) -> Array:
    """Propagate a gradient through one layer, from its output to its input, the MLP first. (B, T, D) → (B, T, D)."""
    g = tap("resid_post", gradient)
    of_mlp = mlp(tap("mlp_out", g), p.mlp, config, values, d, with_prefix(tap, "mlp."), learned.with_prefix("mlp."))
    g = g + layer_norm(
        of_mlp, p.ln_2, values.with_prefix("ln2."), d, with_prefix(tap, "ln2."), learned.with_prefix("ln_2.")
    )
    g = tap("resid_mid", g)
    attended = tap("attn_out", g)
    of_attention = attention(
        attended, p.attn, config, layer, values, d, with_prefix(tap, "attn."), learned.with_prefix("attn.")
    )
    g = g + layer_norm(
        of_attention, p.ln_1, values.with_prefix("ln1."), d, with_prefix(tap, "ln1."), learned.with_prefix("ln_1.")
    )
    return tap("resid_pre", g)


def attention(
    gradient: Array,
    p: P.Attention,
    config: Config,
    layer: int,
    values: Values,
    d: Derivatives,
    tap: Tap,
    learned: Learned,
) -> Array:
    """Propagate a gradient from attention's output to its input: (B, T, D) → (B, T, D)."""
    g_z = tap("z", output(gradient, p.c_proj, config, values, d, tap, learned))

    q, k, v = values["attn.q"], values["attn.k"], values["attn.v"]
    scale = attention_scale(config, layer)
    if tap.wants("pattern") or tap.wants("attn_scores"):
        g_v = d.mix_values_v(g_z, values["attn.pattern"])
        g_pattern = tap("pattern", d.mix_values(g_z, v))
        g_scores = d.softmax(g_pattern, values.made("attn.pattern"))
        changed = tap("attn_scores", g_scores)
        g_scores = changed if changed is g_scores else d.hide(changed)
        g_q, g_k = d.attention_scores(g_scores, q, k, scale)
    else:
        g_q, g_k, g_v = d.attention(g_z, q, k, v, values["attn.pattern"], scale)

    g = d.split_heads(tap("q", g_q), tap("k", g_k), tap("v", g_v))
    learned.pair("c_attn", lambda: d.linear_parameters(g, values["ln1.out"]))
    return d.linear(g, p.c_attn.weight)


def output(
    gradient: Array, p: P.Linear, config: Config, values: Values, d: Derivatives, tap: Tap, learned: Learned
) -> Array:
    """Propagate a gradient from attention's output to its heads' z: (B, T, D) → (B, T, H, K); if tapped, by head."""
    B, T, D = gradient.shape
    learned.pair("c_proj", lambda: d.linear_parameters(gradient, values["attn.z"]))
    if tap.wants("result"):
        of_each = np.broadcast_to(gradient[:, :, None], (B, T, config.n_head, D))
        changed = tap("result", of_each)
        if changed is not of_each:
            learned("c_proj.weight", lambda: d.head_results_parameters(changed, values["attn.z"]))
            return d.head_results(changed, p.weight)
    return d.linear(gradient, p.weight).reshape(B, T, config.n_head, -1)


def mlp(gradient: Array, p: P.MLP, config: Config, values: Values, d: Derivatives, tap: Tap, learned: Learned) -> Array:
    """Propagate a gradient from the MLP's output to its input: (B, T, D) → (B, T, D)."""
    learned.pair("c_proj", lambda: d.linear_parameters(gradient, values["mlp.post"]))
    g, pre = tap("post", d.linear(gradient, p.c_proj.weight)), values["mlp.pre"]
    kind = config.activation_function
    learned.activation(kind, lambda: d.activate_parameters(g, pre, kind, p.act))
    g = tap("pre", d.activate(g, pre, kind, p.act))
    learned.pair("c_fc", lambda: d.linear_parameters(g, values["ln2.out"]))
    return d.linear(g, p.c_fc.weight)


def layer_norm(gradient: Array, p: P.Norm, values: Values, d: Derivatives, tap: Tap, learned: Learned) -> Array:
    """Propagate a gradient through layer norm, step by step where a tap wants its inner activations."""
    g = tap("out", gradient)
    normalized, scale = values.made("normalized"), values["scale"]
    learned.pair("", lambda: d.scaled_and_shifted_parameters(g, values["normalized"]))
    if not (tap.wants("scale") or tap.wants("normalized")):
        return tap("in", d.layer_norm(g, p.weight, normalized, scale))
    g = tap("normalized", d.scaled_and_shifted(g, p.weight))
    g_scale = tap("scale", d.divided_scale(g, normalized, scale))
    g = d.divided(g, scale) + d.layer_norm_scale(g_scale, normalized * scale, values.made("scale"))
    return tap("in", d.centred(g))


LookUp = Callable[[Array, Array, Array], Array]


class Learned(Readable):
    """A collection of parameter gradients by their official names. It computes nothing where they aren't wanted."""

    def __init__(self, wanted: bool, tensors: dict[str, Array] | None = None, prefix: str = "") -> None:
        self.wanted, self.prefix = wanted, prefix
        self.tensors: dict[str, Array] = {} if tensors is None else tensors

    def with_prefix(self, prefix: str) -> Learned:
        """Return the same collection for one part of the model, whose names get this prefix."""
        return Learned(self.wanted, self.tensors, self.prefix + prefix)

    def __call__(self, name: str, derivative: Callable[[], Array]) -> None:
        """Add one tensor's gradient."""
        if self.wanted:
            self.tensors[self.prefix + name] = derivative()

    def pair(self, name: str, derivative: Callable[[], tuple[Array, Array]]) -> None:
        """Add the gradients of a weight and a bias."""
        if self.wanted:
            prefix = f"{self.prefix}{name}." if name else self.prefix
            self.tensors[f"{prefix}weight"], self.tensors[f"{prefix}bias"] = derivative()

    def rows(self, name: str, table: Array, derivative: LookUp, gradient: Array, ids: Array) -> None:
        """Add the gradient of the rows that were looked up in a table to the gradient that the table already has."""
        if self.wanted:
            if name not in self.tensors:
                self.tensors[name] = np.zeros(table.shape, gradient.dtype)
            derivative(gradient, ids, self.tensors[name])

    def activation(self, kind: str, derivative: Callable[[], tuple[Array, ...]]) -> None:
        """The gradients of what an activation of this kind itself learned."""
        names = P.ACTIVATION_PARAMETERS.get(kind, ()) if self.wanted else ()
        if names:
            found = derivative()
            self.tensors |= {f"{self.prefix}act.{name}": one for name, one in zip(names, found, strict=True)}
