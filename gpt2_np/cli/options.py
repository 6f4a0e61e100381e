"""Options that several commands share: the model's options, and options that help lists by purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from ..model.choices import BACKENDS, DTYPES

if TYPE_CHECKING:
    from ..text.gpt2 import GPT2

    ParamType = click.ParamType[Any]  # generic for type checkers, but not in every click that will do
else:
    ParamType = click.ParamType

# What click's decorators take and give back: a command's function, or a command.
FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")


class Grouped(click.Option):
    """An option that help lists under a heading of its own."""

    def __init__(self, *arguments: Any, group: str = "Options", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group = group

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return what an error calls the option: its environment variable is named too, as click does only from 8.2
        on.
        """
        hint = super().get_error_hint(ctx)
        told = not self.show_envvar or str(self.envvar) in hint
        return hint if told else f"{hint} (env var: '{self.envvar}')"


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


def grouped(group: str, *names: str, **settings: Any) -> Callable[[FC], FC]:
    """A `Grouped` option."""
    return click.option(*names, cls=Grouped, group=group, **settings)


class Text(ParamType):
    """A text with ``\\n``, ``\\t`` and ``\\\\`` for a line's end, a tab and a backslash."""

    name = "text"
    ESCAPES: ClassVar = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return re.sub(r"\\[nt\\]", lambda found: self.ESCAPES[found[0]], value)


def prompts_option(does: str) -> Callable[[FC], FC]:
    """--prompts."""
    return grouped(
        "Input",
        "--prompts",
        type=click.Path(path_type=Path, allow_dash=True),
        metavar="FILE|-",
        help=f"{does}: .jsonl (objects with options of their own), or a text a line; -: standard input.",
    )


def output_option() -> Callable[[FC], FC]:
    """--output."""
    return grouped(
        "Output",
        "--output",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Append results to this file as JSONL; the same command run again continues after what it holds.",
    )


def model_option(group: str = "Model") -> Callable[[FC], FC]:
    """--model."""
    return grouped(
        group,
        "-m",
        "--model",
        default="tales",
        show_default=True,
        metavar="NAME",
        envvar="GPT2_NP_MODEL",
        show_envvar=True,
        help="tales (bundled), gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, a hub id, or a folder.",
    )


def dtype_option(dtypes: Sequence[str]) -> Callable[[FC], FC]:
    """--dtype, one of these."""
    return grouped(
        "Model",
        "--dtype",
        envvar="GPT2_NP_DTYPE",
        show_envvar=True,
        type=click.Choice(dtypes),
        default="float32",
        show_default=True,
        help="The number format in which weights are kept.",
    )


def backend_option(text: str, backends: Sequence[str] = BACKENDS) -> Callable[[FC], FC]:
    """--backend, one of these, with its help."""
    help = f"{text}  [default: numba, where installed]"
    return grouped(
        "Model",
        "--backend",
        envvar="GPT2_NP_BACKEND",
        show_envvar=True,
        type=click.Choice(backends),
        default=None,
        help=help,
    )


def model_options(function: FC) -> FC:
    """--model, --dtype and --backend."""
    for option in (
        backend_option(
            "The implementation: compiled kernels, readable NumPy, or torch as the reference.", (*BACKENDS, "torch")
        ),
        grouped(
            "Model",
            "--device",
            envvar="GPT2_NP_DEVICE",
            show_envvar=True,
            type=click.Choice(["cpu", "cuda"]),
            default=None,
            help="The device on which --backend torch runs.  [default: cpu]",
        ),
        dtype_option(DTYPES),
        model_option(),
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


def length_option(group: str = "Corpus", cut: str = "texts are", default: int = 256) -> Callable[[FC], FC]:
    """Return the decorator that adds ``--length`` to a command that reads a corpus in pieces."""
    words = f"The length in tokens of the pieces that {cut} cut into.  [default: {default}, or the context]"
    return grouped(group, "--length", type=int, help=words)


def capture_options(cut: str) -> Callable[[FC], FC]:
    """Return the decorator that adds what a capture of a corpus needs: names, length of pieces, number format."""
    named = "The name of an activation, or a pattern of names; repeatable."
    stored = "The number format of the captured activations."
    formats = click.Choice(["float32", "float16"])
    options: list[Callable[[FC], FC]] = [
        grouped("Capture", "--names", multiple=True, required=True, help=named),
        length_option("Capture", cut),
        grouped("Capture", "--store", type=formats, default="float32", show_default=True, help=stored),
    ]

    def decorate(function: FC) -> FC:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
