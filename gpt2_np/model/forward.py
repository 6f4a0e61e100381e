"""GPT-2, whole: embed, twelve blocks of attention and MLP, unembed.

Read it beside Radford et al. 2019 ("Language Models are Unsupervised Multitask Learners", section 2.3) and beside
`ops`. Everything is a function of frozen parameters; whatever varies is an argument. The name that each step passes to
`tap` is the activation's name in TransformerLens; `taps` describes what a tap can do.

Shape letters, here and everywhere:

    B rows               D n_embd, the width of the residual stream
    T positions fed now  H heads
    S positions seen     K head width, D / H
    N cache capacity     F MLP width
    V vocabulary         L layers
"""

from __future__ import annotations

import numpy as np

from . import ops as readable
from . import params as P
from .arrays import Array
from .cache import KVCache
from .config import Config
from .operations import Operations
from .taps import Tap, at_positions, no_tap, with_prefix


def forward(
    params: P.Params,
    config: Config,
    ids: Array,
    *,
    cache: KVCache | None = None,
    ops: Operations = readable,
    tap: Tap = no_tap,
    token_type_ids: Array | None = None,
    last_only: bool = False,
) -> Array:
    """The logits of what comes next, after each of the T new positions: (B, T) ids → (B, T, V).

    With a `cache`, the ids continue the rows that it holds and are added to it. `ops` is the implementation of the
    operations, the module `ops` or its compiled twin `kernels`. `tap` observes or edits activations. `token_type_ids`,
    (B, T), are looked up in ``wte`` and added, as GPT-2 does. With `last_only` the result is (B, 1, V). The dtype is
    the parameters'.
    """
    B, T = ids.shape
    lengths = np.zeros(B, np.int64) if cache is None else cache.lengths
    positions = lengths[:, None] + np.arange(T)
    tap = at_positions(tap, positions)

    x = tap("embed", params.wte[ids]) + tap("pos_embed", params.wpe[positions])
    if token_type_ids is not None:
        x = x + params.wte[token_type_ids]
    for layer, p in enumerate(params.h):
        ends = last_only and layer == config.n_layer - 1 and tap is no_tap  # a tap receives every position
        x = block(x, p, config, layer, ops, cache, with_prefix(tap, f"blocks.{layer}."), ends)
    if cache is not None:
        cache.advance(T)
    x = layer_norm(asked(x, last_only), params.ln_f, config, ops, with_prefix(tap, "ln_final."))
    return tap("unembed", ops.unembed(x, params.lm_head))


def block(
    x: Array,
    p: P.Block,
    config: Config,
    layer: int,
    ops: Operations,
    cache: KVCache | None,
    tap: Tap,
    last_only: bool = False,
) -> Array:
    """One layer: attention, then MLP, each reading the residual stream and adding to it. (B, T, D) → (B, T, D).

    With `last_only` the result is the last position's, (B, 1, D).
    """
    x = tap("resid_pre", x)
    normalized = layer_norm(x, p.ln_1, config, ops, with_prefix(tap, "ln1."))
    attended = attention(normalized, p.attn, config, layer, ops, cache, with_prefix(tap, "attn."), last_only)
    return behind_attention(asked(x, last_only) + tap("attn_out", attended), p, config, ops, tap)


def behind_attention(x: Array, p: P.Block, config: Config, ops: Operations, tap: Tap) -> Array:
    """The second half of a layer: the MLP, which reads the residual stream and adds to it. (B, T, D) → (B, T, D)."""
    x = tap("resid_mid", x)
    normalized = layer_norm(x, p.ln_2, config, ops, with_prefix(tap, "ln2."))
    x = x + tap("mlp_out", mlp(normalized, p.mlp, config, ops, with_prefix(tap, "mlp.")))
    return tap("resid_post", x)


def attention(
    x: Array,
    p: P.Attention,
    config: Config,
    layer: int,
    ops: Operations,
    cache: KVCache | None,
    tap: Tap,
    last_only: bool = False,
) -> Array:
    """Each position combines values of earlier ones, in H parallel heads. (B, T, D) → (B, T, D).

    With `last_only` the result is the last position's, (B, 1, D); keys and values are computed for all positions.
    """
    q, k, v = ops.split_heads(ops.linear(x, *p.c_attn), config.n_head)
    q, k, v = tap("q", q), tap("k", k), tap("v", v)

    k, v, lengths = with_past(k, v, layer, cache)
    q = asked(q, last_only)
    lengths = lengths + (x.shape[1] - q.shape[1])  # positions before the first query

    scale = attention_scale(config, layer)
    if tap.wants("attn_scores") or tap.wants("pattern"):
        S = int(lengths.max()) + q.shape[1]
        scores = tap("attn_scores", ops.attention_scores(q, k[:, :, :S], lengths, scale))
        z = ops.mix_values(tap("pattern", ops.softmax(scores)), v)
    else:
        z = ops.attention(q, k, v, lengths, scale)
    return output(tap("z", z), p.c_proj, ops, tap)


def output(z: Array, p: P.Linear, ops: Operations, tap: Tap) -> Array:
    """Map the heads' results back to the residual stream: (B, T, H, K) → (B, T, D).

    One matrix product computes the heads' contributions and adds them up. If a tap wants each head's contribution, they
    are computed in addition; only if the tap changes them are they added up here, since this rounds differently.
    """
    if tap.wants("result"):
        results = head_results(z, p)
        changed = tap("result", results)
        if changed is not results:
            return changed.sum(axis=2) + p.bias
    B, T, H, K = z.shape
    return ops.linear(z.reshape(B, T, H * K), *p)


def with_past(k: Array, v: Array, layer: int, cache: KVCache | None) -> tuple[Array, Array, Array]:
    """Append new keys and values to those of earlier positions, and return how many each row has of these.

    (B, T, H, K) twice → (B, H, N, K) twice and (B,); without a cache there is no past, and N is T.
    """
    if cache is None:
        return k.swapaxes(1, 2), v.swapaxes(1, 2), np.zeros(len(k), np.int64)
    return *cache.extend(layer, k, v), cache.lengths


def asked(x: Array, last_only: bool) -> Array:
    """Return the positions whose logits are wanted: all of (B, T, …), or the last one, (B, 1, …).

    After the last layer's keys and values no position reads another one, so the other positions can be dropped there.
    """
    return x[:, -1:] if last_only else x


def attention_scale(config: Config, layer: int) -> float:
    """Return the factor of the scores: 1/√K, and in addition 1/(layer + 1) where the configuration says so.

    It is a Python float: a NumPy scalar would turn float32 arrays into float64.
    """
    scale = config.head_width**-0.5 if config.scale_attn_weights else 1.0
    return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale


def head_results(z: Array, c_proj: P.Linear) -> Array:
    """Return what each head writes to the residual stream, without the bias: (B, T, H, K) → (B, T, H, D)."""
    H, K = z.shape[2:]
    per_head = P.as_array(c_proj.weight).reshape(H, 1, K, -1)
    return (z.transpose(2, 0, 1, 3) @ per_head).transpose(1, 2, 0, 3)


def mlp(x: Array, p: P.MLP, config: Config, ops: Operations, tap: Tap) -> Array:
    """Each position is processed by itself: D → F neurons → D. (B, T, D) → (B, T, D)."""
    pre = tap("pre", ops.linear(x, *p.c_fc))
    post = tap("post", ops.activate(pre, config.activation_function, p.act))
    return ops.linear(post, *p.c_proj)


def layer_norm(x: Array, p: P.Norm, config: Config, ops: Operations, tap: Tap) -> Array:
    """Apply layer norm, step by step where a tap wants the scale or the normalized value."""
    x = tap("in", x)
    if not (tap.wants("scale") or tap.wants("normalized")):
        return tap("out", ops.layer_norm(x, *p, config.layer_norm_epsilon))
    x = ops.centred(x)
    x /= tap("scale", ops.layer_norm_scale(x, config.layer_norm_epsilon))
    return tap("out", ops.scaled_and_shifted(tap("normalized", x), *p))
