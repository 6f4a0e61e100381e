"""The description of a model in a few facts: a line in a terminal, a table in a notebook."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from .. import display
from ..model.params import flatten, matrices, shapes
from ..model.taps import no_tap
from ..weights import hub
from ..weights.panels import Matrix


def facts(model: Any) -> dict[str, str]:
    """Return facts of a `Model` by name: its origin, its shape, its parameters and their precision, what computes it.

    Nothing is loaded or computed for it, so it costs microseconds.
    """
    config = model.config
    count = sum(math.prod(shape) for shape in shapes(config).values())
    size = sum(weight.nbytes for _, weight in flatten(model.params))
    found = {
        "from": source(model),
        "shape": f"{config.n_layer} layers of {config.n_head} heads, {config.n_embd} wide, MLPs {config.mlp_width}",
        "vocabulary": f"{config.vocab_size:,} ids",
        "context": f"{config.n_positions:,} positions",
        "parameters": f"{count:,} in {precision(model)}, {display.in_bytes(size)}",
        "computes": f"in {model.dtype} by {model.backend}",
    }
    return found if model.tap is no_tap else found | {"edits": display.brief_repr(model.tap)}


def source(model: Any) -> str:
    """Return where a model's parameters came from: a name, a folder, or neither."""
    if model.origin is None:
        return "parameters that were given" + (f", tokenizer of {named(model.folder)}" if model.folder else "")
    given = model.origin.name
    return str(given) if isinstance(given, str) and model.folder.parent != hub.BUNDLED else named(model.folder)


def named(folder: Path) -> str:
    """Return a model's folder, or the name alone for a model that comes with the package."""
    return f"{folder.name}, which comes with the package" if folder.parent == hub.BUNDLED else str(folder)


def precision(model: Any) -> str:
    """Return the data type of the weights: "float32", "float64", or a reduced precision."""
    weight = matrices(model.params.h[0])[0].weight
    if isinstance(weight, Matrix):
        return weight.precision
    return str(weight.dtype) if isinstance(weight, np.ndarray) else f"float32 and a {type(weight).__name__}"


def line(model: Any) -> str:
    """Return a model in one line.

    >>> from gpt2_np import GPT2
    >>> GPT2.from_pretrained(backend="numpy")  # doctest: +ELLIPSIS
    GPT2(from tales, which comes with the package: 8 layers of 10 heads, ...)
    """
    told = facts(model)
    rest = [told[name] for name in ("shape", "vocabulary", "context", "parameters", "computes")]
    edits = [f"with {told['edits']}"] if "edits" in told else []
    return f"{type(model).__name__}(from {told['from']}: {'; '.join([*rest, *edits])})"


def card(model: Any) -> str:
    """Return a model as a table, in HTML."""
    return display.boxed(display.table(facts(model).items()), title=type(model).__name__)
