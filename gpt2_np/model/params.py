"""A GPT-2's parameters: arrays in named tuples, nested and named as in the checkpoint.

``params.h[3].attn.c_attn.weight`` is the tensor ``h.3.attn.c_attn.weight``. Nothing here can be changed in place
by accident: to try an altered model, build a new tuple with ``._replace``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from ..display import described
from .arrays import Array, Weight
from .config import Config

Tree = TypeVar("Tree")  # parameters, or a nest of tuples and dicts of arrays


class Norm(NamedTuple):
    """Gain and bias of a layer norm: both (D,)."""

    weight: Array
    bias: Array

    def __repr__(self) -> str:
        return described(self)


class Linear(NamedTuple):
    """An affine map. ``weight`` is (inputs, outputs), GPT-2's own orientation (``Conv1D``); ``bias`` is (outputs,)."""

    weight: Weight
    bias: Array

    def __repr__(self) -> str:
        return described(self)


class Attention(NamedTuple):
    """``c_attn`` maps D to 3·D (queries, keys, values side by side); ``c_proj`` maps the heads' outputs back to D."""

    c_attn: Linear
    c_proj: Linear

    def __repr__(self) -> str:
        return described(self)


class MLP(NamedTuple):
    """``c_fc`` maps D to F and ``c_proj`` back; ``act`` holds the activation's own parameters, which are mostly
    absent.
    """

    c_fc: Linear
    c_proj: Linear
    act: tuple[Array, ...] = ()

    def __repr__(self) -> str:
        return described(self)


class Block(NamedTuple):
    """One layer: attention and MLP, each preceded by its layer norm."""

    ln_1: Norm
    attn: Attention
    ln_2: Norm
    mlp: MLP

    def __repr__(self) -> str:
        return described(self)


class Params(NamedTuple):
    """A whole model. ``lm_head`` is (V, D), and is the same array as ``wte`` where the two are tied."""

    wte: Array
    wpe: Array
    h: tuple[Block, ...]
    ln_f: Norm
    lm_head: Weight

    def __repr__(self) -> str:
        return described(self)


def as_array(weight: Weight) -> Array:
    """Return a `Linear`'s weight as an (inputs, outputs) array, whatever its precision."""
    return weight if isinstance(weight, np.ndarray) else weight.dequantize()


def unembedding(params: Params) -> Array:
    """Return ``lm_head`` as a (V, D) array, whatever its precision."""
    return params.lm_head if isinstance(params.lm_head, np.ndarray) else params.lm_head.dequantize().T


def matrices(block: Block) -> tuple[Linear, ...]:
    """Return a block's four affine maps, in the order in which they are applied."""
    return block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj


def with_weights(block: Block, weights: Iterable[Weight]) -> Block:
    """Return the same block with these weights in its four affine maps, in the order of `matrices`."""
    c_attn, attn_proj, c_fc, mlp_proj = (
        part._replace(weight=weight) for part, weight in zip(matrices(block), weights, strict=True)
    )
    return block._replace(attn=Attention(c_attn, attn_proj), mlp=MLP(c_fc, mlp_proj, block.mlp.act))


# The learned parameters of the two activations that have some.
ACTIVATION_PARAMETERS = {"prelu": ("weight",), "xielu": ("alpha_p", "alpha_n")}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return every tensor that a checkpoint of this configuration holds: official name → shape.

    ``lm_head.weight`` is listed where it is not tied to ``wte.weight``.
    """
    D, F, V = config.n_embd, config.mlp_width, config.vocab_size
    table: dict[str, tuple[int, ...]] = {"wte.weight": (V, D), "wpe.weight": (config.n_positions, D)}
    for layer in range(config.n_layer):
        block = {
            "ln_1.weight": (D,),
            "ln_1.bias": (D,),
            "attn.c_attn.weight": (D, 3 * D),
            "attn.c_attn.bias": (3 * D,),
            "attn.c_proj.weight": (D, D),
            "attn.c_proj.bias": (D,),
            "ln_2.weight": (D,),
            "ln_2.bias": (D,),
            "mlp.c_fc.weight": (D, F),
            "mlp.c_fc.bias": (F,),
            "mlp.c_proj.weight": (F, D),
            "mlp.c_proj.bias": (D,),
        }
        for name in ACTIVATION_PARAMETERS.get(config.activation_function, ()):
            block[f"mlp.act.{name}"] = (1,)
        table |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
    table |= {"ln_f.weight": (D,), "ln_f.bias": (D,)}
    if not config.tie_word_embeddings:
        table["lm_head.weight"] = (V, D)
    return table


def assemble(tensors: dict[str, Array], config: Config) -> Params:
    """Nest a flat mapping of tensors (official names, as in `shapes`) into `Params`. Nothing is copied."""

    def norm(name: str) -> Norm:
        return Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def linear(name: str) -> Linear:
        return Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def block(name: str) -> Block:
        act = ACTIVATION_PARAMETERS.get(config.activation_function, ())
        return Block(
            norm(f"{name}.ln_1"),
            Attention(linear(f"{name}.attn.c_attn"), linear(f"{name}.attn.c_proj")),
            norm(f"{name}.ln_2"),
            MLP(
                linear(f"{name}.mlp.c_fc"),
                linear(f"{name}.mlp.c_proj"),
                tuple(tensors[f"{name}.mlp.act.{part}"] for part in act),
            ),
        )

    wte = tensors["wte.weight"]
    return Params(
        wte=wte,
        wpe=tensors["wpe.weight"],
        h=tuple(block(f"h.{layer}") for layer in range(config.n_layer)),
        ln_f=norm("ln_f"),
        lm_head=tensors.get("lm_head.weight", wte),
    )


def tensors(params: Params) -> dict[str, Array]:
    """Return every array by its official name, without a tied ``lm_head``: the inverse of `assemble`.

    ``ValueError`` if a weight is not stored as an array.
    """
    found: dict[str, Array] = {}
    for name, weight in flatten(params):
        if not isinstance(weight, np.ndarray):
            raise ValueError(f"{name} must be an array, got a {type(weight).__name__}")
        found[name] = weight
    return found


def flatten(params: Params) -> Iterator[tuple[str, Weight]]:
    """List every (official name, parameter) pair, without a tied ``lm_head``, whatever its precision."""
    yield "wte.weight", params.wte
    yield "wpe.weight", params.wpe
    for layer, block in enumerate(params.h):
        parts: dict[str, Norm | Linear] = {
            "ln_1": block.ln_1,
            "attn.c_attn": block.attn.c_attn,
            "attn.c_proj": block.attn.c_proj,
            "ln_2": block.ln_2,
            "mlp.c_fc": block.mlp.c_fc,
            "mlp.c_proj": block.mlp.c_proj,
        }
        for name, part in parts.items():
            yield f"h.{layer}.{name}.weight", part.weight
            yield f"h.{layer}.{name}.bias", part.bias
        names = next((names for names in ACTIVATION_PARAMETERS.values() if len(names) == len(block.mlp.act)), ())
        for name, value in zip(names, block.mlp.act, strict=True):
            yield f"h.{layer}.mlp.act.{name}", value
    yield "ln_f.weight", params.ln_f.weight
    yield "ln_f.bias", params.ln_f.bias
    if params.lm_head is not params.wte:
        yield "lm_head.weight", params.lm_head


def check_shapes(params: Params, config: Config) -> None:
    """Raise ``ValueError``, which names the first tensor whose shape differs from `shapes`; ``lm_head`` may be
    untied.
    """
    expected, found = shapes(config), {name: np.shape(tensor) for name, tensor in flatten(params)}
    expected.setdefault("lm_head.weight", expected["wte.weight"])
    if not isinstance(params.lm_head, np.ndarray):
        found["lm_head.weight"] = params.lm_head.shape[::-1]  # reduced precision has (inputs, outputs)
    found.setdefault("lm_head.weight", np.shape(params.lm_head))
    for name in dict.fromkeys([*expected, *found]):
        if found.get(name) != expected.get(name):
            raise ValueError(f"{name} must have the shape {expected.get(name)}, got {found.get(name)}")


def map_arrays(tree: Tree, change: Callable[[Any], Any]) -> Tree:
    """Return the same model, or nest of tuples and dicts, with ``change(array)`` in place of every array.

    Each array is visited once: a tied head stays tied.
    """
    # No function within this one: if it called itself it would be part of a cycle, which would keep the arrays alive
    # that `change` holds until the garbage collector comes.
    whole: Any = tree
    if isinstance(whole, Params):
        wte = change(whole.wte)
        lm_head = wte if whole.lm_head is whole.wte else change(whole.lm_head)
        wpe, h, ln_f = change(whole.wpe), map_arrays(whole.h, change), map_arrays(whole.ln_f, change)
        return cast(Tree, Params(wte, wpe, h, ln_f, lm_head))
    if isinstance(whole, dict):
        return cast(Tree, {name: map_arrays(part, change) for name, part in whole.items()})
    if isinstance(whole, tuple):
        parts = [map_arrays(part, change) for part in whole]
        return cast(Tree, type(whole)(*parts) if hasattr(whole, "_fields") else tuple(parts))
    return cast(Tree, change(whole))
