"""GPT-2 backwards: unembed, the blocks from the last to the first, embed. Read it beside `model`, line by line.

Every function here is the mirror image of the one of the same name there: the same steps from the end to the
beginning, gradients in place of values. The gradient of an activation is shown to `tap` under the activation's name,
and what the tap returns goes on. Where a value goes two ways (the residual stream goes past a block and into its
norm), its gradient is the sum of what comes back from both. The formulas are in `derivatives`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..model import params as P
from ..model.arrays import Array
from ..model.config import Config
from ..model.forward import attention_scale
from ..model.taps import Tap, no_tap, within
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
    """From the gradient of the logits, (B, T, V), to that of everything they were made of.

    `kept` was the tap of the forward pass of the same (B, T) ids. `derivatives` is the implementation of the
    derivatives, `derivatives` or its twin `threaded`; `tap` sees and may replace every gradient. With `parameters` the
    result holds the parameters' gradients; that of a tied ``wte`` has both shares, of reading and of writing tokens.
    The dtype is the parameters'.
    """
    d, learned, values = derivatives, Learned(parameters), kept.values()
    head = "wte.weight" if params.lm_head is params.wte else "lm_head.weight"

    g = tap("unembed", gradient)
    del gradient  # as large as the logits, so it isn't held longer than it is read
    learned(head, lambda: d.unembed_parameters(g, values["ln_final.out"]))
    g = d.unembed(g, params.lm_head)
    g = layer_norm(g, params.ln_f, values.within("ln_final."), d, within(tap, "ln_final."), learned.within("ln_f."))
    for layer in reversed(range(config.n_layer)):
        of_layer, prefix = kept.block(layer), f"blocks.{layer}."
        g = block(g, params.h[layer], config, layer, of_layer, d, within(tap, prefix), learned.within(f"h.{layer}."))
    if token_type_ids is not None:
        learned.rows("wte.weight", params.wte, d.look_up, g, token_type_ids)
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    learned.rows("wpe.weight", params.wpe, d.look_up, tap("pos_embed", g), positions)
    learned.rows("wte.weight", params.wte, d.look_up, tap("embed", g), ids)
    return P.assemble(learned.tensors, config) if parameters else None


def block(
    gradient: Array, p: P.Block, config: Config, layer: int, values: Values, d: Derivatives, tap: Tap, learned: Learned
) -> Array:
    """One layer: from what left it to what entered it, the MLP first. (B, T, D) → (B, T, D)."""
    g = tap("resid_post", gradient)
    of_mlp = mlp(tap("mlp_out", g), p.mlp, config, values, d, within(tap, "mlp."), learned.within("mlp."))
    g = g + layer_norm(of_mlp, p.ln_2, values.within("ln2."), d, within(tap, "ln2."), learned.within("ln_2."))
    g = tap("resid_mid", g)
    attended = tap("attn_out", g)
    of_attention = attention(attended, p.attn, config, layer, values, d, within(tap, "attn."), learned.within("attn."))
    g = g + layer_norm(of_attention, p.ln_1, values.within("ln1."), d, within(tap, "ln1."), learned.within("ln_1."))
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
    """From what attention wrote to what it read: (B, T, D) → (B, T, D)."""
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
    """From what attention wrote to its heads' z: (B, T, D) → (B, T, H, K), each head's result apart if tapped."""
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
    """From what the MLP wrote to what it read: (B, T, D) → (B, T, D)."""
    learned.pair("c_proj", lambda: d.linear_parameters(gradient, values["mlp.post"]))
    g, pre = tap("post", d.linear(gradient, p.c_proj.weight)), values["mlp.pre"]
    kind = config.activation_function
    learned.activation(kind, lambda: d.activate_parameters(g, pre, kind, p.act))
    g = tap("pre", d.activate(g, pre, kind, p.act))
    learned.pair("c_fc", lambda: d.linear_parameters(g, values["ln2.out"]))
    return d.linear(g, p.c_fc.weight)


def layer_norm(gradient: Array, p: P.Norm, values: Values, d: Derivatives, tap: Tap, learned: Learned) -> Array:
    """Layer norm, opened up where someone listens."""
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


class Learned:
    """Collects the gradients of parameters, by their official names; where they aren't wanted, nothing is computed."""

    def __init__(self, wanted: bool, tensors: dict[str, Array] | None = None, prefix: str = "") -> None:
        self.wanted, self.prefix = wanted, prefix
        self.tensors: dict[str, Array] = {} if tensors is None else tensors

    def within(self, prefix: str) -> Learned:
        """The same collection seen from inside one part of the model."""
        return Learned(self.wanted, self.tensors, self.prefix + prefix)

    def __call__(self, name: str, derivative: Callable[[], Array]) -> None:
        """One tensor's gradient."""
        if self.wanted:
            self.tensors[self.prefix + name] = derivative()

    def pair(self, name: str, derivative: Callable[[], tuple[Array, Array]]) -> None:
        """A weight's gradient and a bias's."""
        if self.wanted:
            prefix = f"{self.prefix}{name}." if name else self.prefix
            self.tensors[f"{prefix}weight"], self.tensors[f"{prefix}bias"] = derivative()

    def rows(self, name: str, table: Array, derivative: LookUp, gradient: Array, ids: Array) -> None:
        """The gradient of the rows of a table that were looked up, added to what the table has already."""
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
