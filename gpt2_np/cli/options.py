"""What several commands share: the model's options, and options that help lists by purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..text.gpt2 import GPT2

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
DTYPES = click.Choice(["float32", "float64", "bfloat16", "int8", "int4"])


class Grouped(click.Option):
    """An option that help lists under a heading of its own."""

    def __init__(self, *arguments: Any, group: str = "Options", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help has one section for each group of options, with an example of each."""

    examples: dict[str, str]

    def __init__(self, *arguments: Any, examples: dict[str, str] | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.examples = examples or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each group as a section: those with an example in the order of the examples, then as declared."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in self.examples}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            # The usage line names the arguments already: here they would be bare words among the options.
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for name, records in groups.items():
            if not records:
                continue
            with formatter.section(name):
                formatter.write_dl(records, col_max=34)
                if name in self.examples:
                    formatter.write_paragraph()
                    # Not wrapped (\b), so that it can be copied whole.
                    formatter.write_text(f"\b\nExample: {self.examples[name]}")


def grouped(group: str, *names: str, **settings: Any) -> Decorator:
    """A `Grouped` option."""
    return click.option(*names, cls=Grouped, group=group, **settings)


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--model, --dtype and --backend."""
    for option in (
        grouped(
            "Model",
            "--backend",
            type=click.Choice(["numba", "numpy", "torch"]),
            default=None,
            help="Compiled kernels, the readable path, or torch as the reference.  [default: numba, where installed]",
        ),
        grouped(
            "Model",
            "--device",
            type=click.Choice(["cpu", "cuda"]),
            default=None,
            help="Where --backend torch runs.  [default: cpu]",
        ),
        grouped(
            "Model", "--dtype", type=DTYPES, default="float32", show_default=True, help="What the weights are kept in."
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


def load(model: str, dtype: str, backend: str | None, device: str | None) -> GPT2:
    """The model that the options name."""
    if backend == "torch":
        from ..text.gpt2 import on_torch

        return on_torch(model, dtype=dtype, device=device or "cpu")
    if device is not None:
        raise ValueError(f"--device is for --backend torch; --backend {backend or 'numba'} always runs on the CPU")
    from ..text.gpt2 import GPT2

    return GPT2.from_pretrained(model, dtype=dtype, backend=backend)
