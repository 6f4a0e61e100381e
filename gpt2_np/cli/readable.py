"""Options of the commands that observe a model's internals: the model runs on the readable path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..model.choices import FULL
from .options import FC, dtype_option, grouped, model_option

if TYPE_CHECKING:
    from ..text.gpt2 import GPT2


def readable_model_options(function: FC) -> FC:
    """--model and --dtype: full precision only, since reduced weights have no parts to look at."""
    for option in (dtype_option(FULL), model_option()):
        function = option(function)
    return function


def bos_option(function: FC) -> FC:
    """--bos: `prepend_bos` of what studies text."""
    return grouped("Prompt", "--bos", is_flag=True, help="Begin prompts with the begin-of-text token.")(function)


def load_readable(model: str, dtype: str) -> GPT2:
    """The model that the options name, on the readable path: nothing to compile."""
    import numpy as np

    from ..text.gpt2 import GPT2

    # What overflows is told in the end, once, rather than by NumPy's warnings on the way.
    click.get_current_context().with_resource(np.errstate(over="ignore", invalid="ignore", divide="ignore"))
    return GPT2.from_pretrained(model, dtype=dtype, backend="numpy")
