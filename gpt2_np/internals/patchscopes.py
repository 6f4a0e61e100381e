"""Patchscopes: what a model says about a hidden state that is put into another prompt.

Ghandeharioun et al. 2024, "Patchscopes: A Unifying Framework for Inspecting Hidden Representations of Language
Models": the stream of a source prompt at a layer and position takes the place of the target prompt's at a layer and
position, and the model goes on from there. Layers are counted by the stream before them, as in steering:
``blocks.l.resid_pre``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..model.edits import Part
from ..model.ops import log_softmax
from ..session.model import AnyModel, Model

Array = np.ndarray
Ids = Sequence[int] | Array
IDENTITY = "cat→cat; 135→135; hello→hello; ?"  # the paper's target prompt, which asks for what stands in its last place


def hidden_state(model: Model, source: Ids, layer: int, position: int = -1) -> Array:
    """Return the stream of a prompt (T,) before a layer, at one position: (D,)."""
    _check_layer(model, layer)
    row = model.check_ids(source)
    if len(row) != 1:
        raise ValueError(f"a source is one prompt, got {len(row)} rows")
    _, cache = model.run_with_cache(row, f"blocks.{layer}.resid_pre")
    return cache["resid_pre", layer][0, _position(position, row.shape[1])]


def with_state(
    model: AnyModel, state: Array, layer: int, position: int, *, mapping: Callable[[Array], Array] | None = None
) -> AnyModel:
    """Return the same model with a state (D,) put in before a layer at a position, counted from the text's start.

    The state stays there in everything that the model does: ``with_state(…).generate(target)``. `mapping` is first
    applied to the state. ``ValueError`` for a state of another width.
    """
    _check_layer(model, layer)
    if not 0 <= position < model.config.n_positions:
        raise ValueError(f"position must be between 0 and {model.config.n_positions - 1}, got {position}")
    put = np.asarray(state if mapping is None else mapping(state), model.dtype)
    if put.shape != (model.config.n_embd,):
        raise ValueError(f"a state must have the width {model.config.n_embd}, got shape {put.shape}")
    edit = Part(lambda x: np.broadcast_to(put, x.shape), [position])
    return model.with_edits({f"blocks.{layer}.resid_pre": edit})


def patchscope(
    model: AnyModel,
    source: Ids,
    target: Ids,
    *,
    layer: int,
    position: int = -1,
    target_layer: int | None = None,
    target_position: int = -1,
    mapping: Callable[[Array], Array] | None = None,
) -> AnyModel:
    """Return the model with the source's state at (layer, position) put in at the target's (target_layer,
    target_position).

    Layers are the same unless `target_layer` is given. Run or generate the target with what comes back.
    """
    to = layer if target_layer is None else target_layer
    at = _position(target_position, model.check_ids(target).shape[1])
    return with_state(model, hidden_state(model, source, layer, position), to, at, mapping=mapping)


def sweep(
    model: Model,
    source: Ids,
    target: Ids,
    token: int,
    *,
    position: int = -1,
    target_position: int = -1,
    progress: Callable[[int], object] | None = None,
) -> Array:
    """Return a token's log-probability (nats) after the target, for each layer that a state is taken from and put into.

    (L, L): source layers by target layers. Where both are 0 a token's embedding is exchanged.
    """
    L, row = model.config.n_layer, model.check_ids(target)
    if not 0 <= token < model.config.vocab_size:
        raise ValueError(f"token must be between 0 and {model.config.vocab_size - 1}, got {token}")
    T = row.shape[1]
    at, found = _position(target_position, T), np.zeros((L, L))
    for one in range(L):
        state = hidden_state(model, source, one, position)
        for other in range(L):
            logits = with_state(model, state, other, at)(row)
            found[one, other] = log_softmax(logits[:, -1:])[0, 0, token]
            if progress is not None:
                progress(1)
    return found


def _check_layer(model: Model, layer: int) -> None:
    if not 0 <= layer < model.config.n_layer:
        raise ValueError(f"layer must be between 0 and {model.config.n_layer - 1}, got {layer}")


def _position(position: int, T: int) -> int:
    if not -T <= position < T:
        raise ValueError(f"position must be between {-T} and {T - 1}, got {position}")
    return position % T
