"""What the commands that look inside share: the model's options on the readable path, which is the observable one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .options import grouped

if TYPE_CHECKING:
    from ..text.gpt2 import GPT2


def readable_model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--model and --dtype: full precision only, since reduced weights have no parts to look at."""
    for option in (
        grouped(
            "Model",
            "--dtype",
            type=click.Choice(["float32", "float64"]),
            default="float32",
            show_default=True,
            help="What the weights are kept in.",
        ),
        grouped(
            "Model",
            "-m",
            "--model",
            default="tales",
            show_default=True,
            metavar="NAME",
            help="tales (bundled), gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, a hub id, or a folder.",
        ),
    ):
        function = option(function)
    return function


def load_readable(model: str, dtype: str) -> GPT2:
    """The model that the options name, on the readable path: nothing to compile."""
    import numpy as np

    from ..text.gpt2 import GPT2

    # What overflows is told in the end, once, rather than by NumPy's warnings on the way.
    click.get_current_context().with_resource(np.errstate(over="ignore", invalid="ignore", divide="ignore"))
    return GPT2.from_pretrained(model, dtype=dtype, backend="numpy")
