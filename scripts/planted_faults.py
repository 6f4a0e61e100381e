"""Measure which faults the parity tool detects: faults of decreasing size are planted into our parameters.

python scripts/planted_faults.py [MODEL …]

Each fault changes every result a little; its size is a share of the values that it changes. A fault is detected in a
single tensor (at twelve times torch's distance from float64), by the median over all tensors (at twice torch's), or not
at all. Tokens are not compared, since they detect only faults that change a token.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gpt2_np.model.params import Norm, Params, as_array, map_arrays
from gpt2_np.parity.checks import Check, numbers, rounding
from gpt2_np.parity.suite import ids_of
from gpt2_np.session.model import Model
from gpt2_np.text.gpt2 import GPT2, on_torch

Array = np.ndarray
SIZES = (1e-1, 1e-2, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 0.0)
SHOWN = ["blocks.*.resid_pre", "blocks.*.attn.pattern"]


def in_the_middle(params: Params, **changed: Any) -> Params:
    """Parameters with other parts in the layer in the middle."""
    at = len(params.h) // 2
    return params._replace(h=(*params.h[:at], params.h[at]._replace(**changed), *params.h[at + 1 :]))


def attention_scale(params: Params, size: float) -> Params:
    """The scores of one layer's attention, by its queries."""
    attn = params.h[len(params.h) // 2].attn
    weight, bias = as_array(attn.c_attn.weight).copy(), attn.c_attn.bias.copy()
    D = weight.shape[0]
    weight[:, :D] *= np.float32(1 + size)
    bias[:D] *= np.float32(1 + size)
    return in_the_middle(params, attn=attn._replace(c_attn=attn.c_attn._replace(weight=weight, bias=bias)))


def one_weight(params: Params, size: float) -> Params:
    """A single weight of one layer's MLP, by a share of the largest there."""
    mlp = params.h[len(params.h) // 2].mlp
    weight = as_array(mlp.c_proj.weight).copy()
    weight[0, 0] += np.float32(size * np.abs(weight).max())
    return in_the_middle(params, mlp=mlp._replace(c_proj=mlp.c_proj._replace(weight=weight)))


def one_matrix(params: Params, size: float) -> Params:
    """Change the output of one layer's MLP."""
    mlp = params.h[len(params.h) // 2].mlp
    weight = as_array(mlp.c_proj.weight) * np.float32(1 + size)
    return in_the_middle(params, mlp=mlp._replace(c_proj=mlp.c_proj._replace(weight=weight)))


def final_norm(params: Params, size: float) -> Params:
    """The gain of the final norm, as a wrong epsilon changes it: the logits alone."""
    return params._replace(ln_f=Norm(params.ln_f.weight * np.float32(1 + size), params.ln_f.bias))


def one_position(params: Params, size: float) -> Params:
    """The embedding of the second position."""
    wpe = params.wpe.copy()
    wpe[1] *= np.float32(1 + size)
    return params._replace(wpe=wpe)


def every_weight(params: Params, size: float) -> Params:
    """Every parameter, at random, as fewer bits would."""
    random = np.random.default_rng(0)

    def noisy(x: Array) -> Array:
        return (x * (1 + size * random.uniform(-1, 1, x.shape))).astype(np.float32)

    return map_arrays(params, noisy)


FAULTS: dict[str, Callable[[Params, float], Params]] = {
    "the attention scale of one layer": attention_scale,
    "one weight of an MLP": one_weight,
    "one MLP's output": one_matrix,
    "the final norm's gain": final_norm,
    "one position's embedding": one_position,
    "every weight, at random": every_weight,
}


class References(NamedTuple):
    """A prompt's ids and what torch makes of them by name, in float32 and in float64."""

    ids: Array
    theirs: dict[str, Array]
    truth: dict[str, Array]


def results(model: Model, ids: Array) -> dict[str, Array]:
    """Return the results of a forward pass that the parity tool compares, by name."""
    logits, cache = model.run_with_cache(ids, SHOWN)
    return {**{name: cache[name] for name in cache}, "logits": logits}


def references(name: str) -> tuple[GPT2, list[References]]:
    """Our model, and what torch makes of the tool's prompts."""
    ours = GPT2.from_pretrained(name, backend="numpy")
    theirs, truth = on_torch(name), on_torch(name, dtype="float64")
    rows = [row[: max(2, ours.config.n_positions // 2)] for row in ids_of(ours, ())]
    prompts = [np.array([row]) for row in rows]
    return ours, [References(ids, results(theirs, ids), results(truth, ids)) for ids in prompts]


def caught(ours: Model, prompts: list[References]) -> str:
    """By what a model is caught: "tensor", "median", or "" where it passes."""
    checks: list[Check] = []
    for ids, theirs, truth in prompts:
        mine = results(ours, ids)
        checks += [numbers(name, mine[name], theirs[name], truth[name]) for name in theirs]
    if not all(one.passed for one in checks):
        return "tensor"
    return "" if rounding(checks).passed else "median"


def found(name: str, sizes: tuple[float, ...] = SIZES) -> Iterator[tuple[str, list[str]]]:
    """Each fault, and by what it is caught at each size."""
    ours, prompts = references(name)
    for fault, plant in FAULTS.items():
        yield fault, [caught(ours.with_params(plant(ours.params, size)), prompts) for size in sizes]


def main(names: list[str]) -> None:
    """Print a table for each model, and the smallest size that is caught."""
    for name in names:
        print(
            f"\n| {name}: fault of size | {' | '.join(f'{size:.0e}' if size else '0' for size in SIZES)} | smallest |"
        )
        print("|---" * (len(SIZES) + 2) + "|")
        for fault, by in found(name):
            smallest = min((size for size, one in zip(SIZES, by, strict=True) if one), default=None)
            print(f"| {fault} | {' | '.join(one or '–' for one in by)} | {smallest:.0e} |")


if __name__ == "__main__":
    main(sys.argv[1:] or ["tales"])
