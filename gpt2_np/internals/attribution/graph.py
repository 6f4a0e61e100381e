"""The residual stream as a graph: its senders, its receivers, and the edges between them.

Senders are what is written: ``input`` (the token's embedding; positions are not part of it), every head, every MLP.
Receivers are what reads: every head's query, key and value apart, every MLP, and the logits. Names and order are those
of the reference implementation of EAP-IG (github.com/hannamw/EAP-IG): ``input->a0.h1<q>``, ``a0.h1->m3``,
``m11->logits``. Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ...model.config import Config

Array = np.ndarray


def senders(config: Config) -> list[str]:
    """Return everything that writes, in the order of the forward pass: S = 1 + L·(H + 1) names."""
    layers = ([*(f"a{layer}.h{head}" for head in range(config.n_head)), f"m{layer}"] for layer in range(config.n_layer))
    return ["input", *(name for layer in layers for name in layer)]


def receivers(config: Config) -> list[str]:
    """Return everything that reads, in the order of the forward pass: R = L·(3·H + 1) + 1 names."""
    names: list[str] = []
    for layer in range(config.n_layer):
        names += [f"a{layer}.h{head}<{part}>" for part in "qkv" for head in range(config.n_head)]
        names.append(f"m{layer}")
    return [*names, "logits"]


def before_attention(config: Config, layer: int) -> int:
    """Return how many senders wrote before a layer's attention reads."""
    return 1 + layer * (config.n_head + 1)


def before_mlp(config: Config, layer: int) -> int:
    """Return how many senders wrote before a layer's MLP reads."""
    return before_attention(config, layer) + config.n_head


def of_attention(config: Config, layer: int) -> slice:
    """Return the places of a layer's queries, keys and values among the receivers."""
    start = layer * (3 * config.n_head + 1)
    return slice(start, start + 3 * config.n_head)


def of_mlp(config: Config, layer: int) -> int:
    """Return the place of a layer's MLP among the receivers."""
    return layer * (3 * config.n_head + 1) + 3 * config.n_head


def there(config: Config) -> Array:
    """Return which edges exist: (S, R), True where the sender wrote before the receiver reads."""
    mask = np.zeros((before_attention(config, config.n_layer), of_mlp(config, config.n_layer - 1) + 2), bool)
    for layer in range(config.n_layer):
        mask[: before_attention(config, layer), of_attention(config, layer)] = True
        mask[: before_mlp(config, layer), of_mlp(config, layer)] = True
    mask[:, -1] = True
    return mask


def reads(config: Config) -> Array:
    """Return which receivers are the inputs of which sender: (S, R), none for ``input``, three for a head, one for an
    MLP.
    """
    mask = np.zeros(there(config).shape, bool)
    for layer in range(config.n_layer):
        for head in range(config.n_head):
            of_head = of_attention(config, layer)
            mask[before_attention(config, layer) + head, of_head.start + head : of_head.stop : config.n_head] = True
        mask[before_mlp(config, layer), of_mlp(config, layer)] = True
    return mask


def pruned(edges: Array, config: Config) -> Array:
    """Remove the edges, (S, R), that lie on no path from the input to the logits.

    As in the reference, a sender that nothing reaches, or that reaches nothing, is removed with its edges.
    """
    left: Array = edges & there(config)
    inputs = reads(config)
    while True:
        edges = left
        reached: Array = np.asarray((inputs & edges.any(axis=0)).any(axis=1))
        reached[0] = True
        living: Array = np.asarray(edges.any(axis=1) & reached)
        receiving: Array = np.asarray((inputs & living[:, None]).any(axis=0))
        receiving[-1] = True
        left = np.asarray(edges & living[:, None] & receiving)
        if (left == edges).all():
            return left


def alive(edges: Array) -> Array:
    """Return the senders that belong to a pruned circuit: (S,)."""
    found: Array = np.asarray(edges.any(axis=1))
    return found


def best(scores: Array, config: Config, n: int, *, absolute: bool = True) -> Array:
    """Return the n edges of the highest scores, or of the largest in size, (S, R) → (S, R); ties in order."""
    mask = there(config)
    values = np.where(mask, np.abs(scores) if absolute else scores, -np.inf).reshape(-1)
    chosen = np.zeros(mask.size, bool)
    chosen[np.argsort(-values, kind="stable")[:n]] = True
    return chosen.reshape(mask.shape) & mask


def above(scores: Array, config: Config, threshold: float, *, absolute: bool = True) -> Array:
    """Return the edges whose score, or its size, is at least `threshold`: (S, R)."""
    mask: Array = there(config) & ((np.abs(scores) if absolute else scores) >= threshold)
    return mask


def names_of(edges: Array, config: Config) -> list[str]:
    """The names of some edges, sender by sender: ``a0.h1->m3``."""
    left, right = senders(config), receivers(config)
    return [f"{left[s]}->{right[r]}" for s, r in np.argwhere(edges)]


def to_json(edges: Array, scores: Array, config: Config) -> str:
    """A circuit in the format of the reference's ``Graph.to_json``: cfg, every node, every edge with its score."""
    left, right = senders(config), receivers(config)
    living = alive(edges)
    size = {"n_layers": config.n_layer, "n_heads": config.n_head, "parallel_attn_mlp": False, "d_model": config.n_embd}
    nodes = {name: {"in_graph": bool(one)} for name, one in zip(left, living, strict=True)}
    table = {
        f"{left[s]}->{right[r]}": {"score": float(scores[s, r]), "in_graph": bool(edges[s, r])}
        for s, r in np.argwhere(there(config))
    }
    return json.dumps({"cfg": size, "nodes": nodes | {"logits": {"in_graph": True}}, "edges": table})


def from_json(text: str, config: Config) -> tuple[Array, Array]:
    """The edges and the scores that such a text says, (S, R) both.

    ``ValueError`` where it is broken, or is about a model of another shape.
    """
    try:
        found: Any = json.loads(text)
        size, table = found["cfg"], found["edges"]
        known = {name: np.argwhere(there(config))[i] for i, name in enumerate(names_of(there(config), config))}
        shape = (int(size["n_layers"]), int(size["n_heads"]), int(size["d_model"]))
        if shape != (config.n_layer, config.n_head, config.n_embd):
            ours = (config.n_layer, config.n_head, config.n_embd)
            raise ValueError(f"it is of (layers, heads, width) {shape}, the model has {ours}")
        edges, scores = np.zeros((2, *there(config).shape))
        for name, one in table.items():
            edges[tuple(known[name])], scores[tuple(known[name])] = bool(one["in_graph"]), float(one["score"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"a circuit needs cfg and edges with score and in_graph, {error} is missing or unknown"
        ) from None
    except ValueError as error:
        raise ValueError(f"this is no circuit of the model: {error}") from None
    return edges.astype(bool), scores
