"""Runs that resume in the middle: the layers before a splice aren't computed again for another splice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...display import Readable
from ...engine import threaded
from ...model.activations import ActivationCache
from ...model.forward import behind_attention, forward, output
from ...model.operations import Operations
from ...model.params import Params
from ...model.taps import Capture, no_tap, with_prefix
from ...session.implementation import NumPy
from ...session.model import Model
from ..partial_runs import last_stream, logits_of

Array = np.ndarray
STREAM = ("resid_pre", "resid_mid", "resid_post")
BEHIND_ATTENTION = ("ln2.", "mlp.", "mlp_out")  # what a block computes from its stream behind attention


class Replaced(Readable):
    """A tap that replaces activations by given arrays."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays

    def wants(self, name: str) -> bool:
        return name in self.arrays

    def __call__(self, name: str, x: Array) -> Array:
        return self.arrays.get(name, x)


def needed(name: str) -> list[str]:
    """Return the activation of the plain run from which `logits_with` resumes, given the one it replaces; none where
    it needs none.
    """
    prefix = before(name)
    if prefix is None or name.endswith(STREAM):
        return []
    return [prefix + ("resid_mid" if name.removeprefix(prefix).startswith(BEHIND_ATTENTION) else "resid_pre")]


def before(name: str) -> str | None:
    """Return the prefix of an activation's block, ``blocks.5.``; None for one outside all blocks."""
    parts = name.split(".")
    return f"{parts[0]}.{parts[1]}." if parts[0] == "blocks" else None


def logits_with(
    model: Model, ids: Array, name: str, value: Array, plain: ActivationCache | Mapping[str, Array]
) -> Array:
    """The logits of a run with `value` in the place of the activation `name`: (B, T) ids → (B, T, V).

    `plain` are the activations that `needed` names, of the same run without that. A model with edits of its own runs
    from the start.
    """
    prefix = before(name)
    if prefix is None or model.tap is not no_tap:
        return model.forward(ids, tap=Replaced({name: value}))
    layer, point = int(prefix.split(".")[1]), name.removeprefix(prefix)
    ops, params = operations(model)
    tap, config = Replaced({name: value}), model.config
    if point == "resid_post":
        layer, x = layer + 1, value
    elif point == "mlp_out":  # the last that a block adds: nothing of the block is computed again
        layer, x = layer + 1, plain[prefix + "resid_mid"] + value
    elif point in ("attn.z", "attn_out", "resid_mid") or point.startswith(BEHIND_ATTENTION):  # nor is its attention
        if point == "attn.z":
            value = output(value, params.h[layer].attn.c_proj, ops, no_tap)
        if point in ("attn.z", "attn_out"):
            x = plain[prefix + "resid_pre"] + value
        else:
            x = value if point == "resid_mid" else plain[prefix + "resid_mid"]
        layer, x = layer + 1, behind_attention(x, params.h[layer], config, ops, with_prefix(tap, prefix))
    else:
        x = value if point == "resid_pre" else plain[prefix + "resid_pre"]
    x = last_stream(params, config, ops, x, layer, tap)
    return logits_of(params, config, ops, x, no_tap)


def operations(model: Model) -> tuple[Operations, Params]:
    """Return the operations of a model without edits for plain runs, kernels where it has them, and their parameters.

    Elsewhere a run that is observed takes the readable operations; here it is a corpus that is read.
    """
    if model.tap is no_tap and isinstance(model.implementation, NumPy):
        return model.implementation.operations(no_tap)
    return threaded, model.params


def logits_without(
    model: Model, ids: Array, name: str, zeroed: Array, plain: ActivationCache | Mapping[str, Array]
) -> Array:
    """The logits of a run with `zeroed` in an activation's place, (B, T, V), or (1, 1, V) where all are the same.

    They are where the whole stream is 0: what follows sees neither tokens nor positions, so one position is enough.
    """
    if name.endswith(STREAM) and model.tap is no_tap and not zeroed.any():
        prefix = before(name)
        assert prefix is not None
        nothing = np.zeros_like(zeroed[:1, :1])
        return logits_with(model, ids[:1, :1], name, nothing, {prefix + "resid_pre": nothing})
    return logits_with(model, ids, name, zeroed, plain)


def run(model: Model, ids: Array, names: list[str]) -> tuple[Array, Mapping[str, Array]]:
    """Return the logits and some activations of a plain run: (B, T, V), and by name."""
    capture = Capture(names)
    if model.tap is no_tap and isinstance(model.implementation, NumPy):
        ops, params = operations(model)
        with np.errstate(over="ignore", invalid="ignore"):  # `check_logits` reports an overflow
            logits = forward(params, model.config, ids, ops=ops, tap=capture)
    else:
        logits = model.forward(ids, tap=capture)
    model.check_logits(logits, ids)
    return logits, capture.values
