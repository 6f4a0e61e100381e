"""The command line: ``gpt2-np generate | logits | score | choose | parity | inspect | …``. Thin: parse, call, print."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from ..system.errors import in_words, one_line
from ..version import __version__
from . import streams
from .suggestions import Suggesting, hint

# What `internals` is made of: the group first, then the modules that give it commands.
INTERNALS = [
    "internals",
    "internals_attribution",
    "internals_backward",
    "internals_circuits",
    "internals_corpus",
    "internals_dictionaries",
    "internals_dictionaries_made",
    "internals_graph",
    "internals_lenses",
    "internals_parts",
    "internals_patching",
    "internals_states",
    "internals_tasks",
]
# Each command: the modules that make it, loaded when it is called, and its name in the first of them.
COMMANDS = {
    "generate": (["generate"], "generate"),
    "logits": (["look"], "logits"),
    "score": (["score"], "score"),
    "corpus": (["corpus", "corpus_generate", "corpus_merge"], "corpus_group"),
    "choose": (["choose"], "choose"),
    "info": (["look"], "info"),
    "evaluate": (["evaluate"], "evaluate"),
    "parity": (["parity"], "parity"),
    "train": (["train"], "train"),
    "serve": (["serve"], "serve"),
    "inspect": (["inspect"], "inspect_command"),
    "internals": (INTERNALS, "internals_group"),
}


class Commands(Suggesting):
    """The commands, of which only the one that is called is loaded."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        modules, name = COMMANDS[cmd_name]
        first, *_ = [import_module(f".{module}", __name__) for module in modules]
        command: click.Command = getattr(first, name)
        return command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="gpt2-np")
@click.pass_context
def cli(context: click.Context) -> None:
    """GPT-2 in NumPy: the same tokens as torch, without torch.

    \b
    gpt2-np generate "Once upon a time"
    gpt2-np generate "Once upon a time" --do-sample --temperature 0.8 --top-p 0.9 --seed 1
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run a command and, where it didn't work, leave with its exit status.

    0 when it worked; 1 with one line on stderr where standard output or a disk takes no more, or where a command says
    that a check failed; 2 with one line for a user's mistake or a bad file; 130 on Ctrl-C, 141 where the reader of
    standard output has gone.
    """
    streams.fill()
    shown = warnings.showwarning
    with streams.standard():
        warnings.showwarning = warn
        try:
            left = status(arguments)
        finally:
            warnings.showwarning = shown
    if left:
        sys.exit(left)


def status(arguments: list[str] | None) -> int:
    """The exit status of a command that was run."""
    try:
        try:
            run(sys.argv[1:] if arguments is None else arguments)
        except click.exceptions.Exit as left:
            sys.exit(left.exit_code)
        finally:
            sys.stdout.flush()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except (click.Abort, KeyboardInterrupt, EOFError):
        print(file=sys.stderr)
        return 130
    except click.ClickException as error:
        return refused(error.format_message() + hint(error))
    except BrokenPipeError:
        return streams.gone()
    except OSError as error:
        if streams.of_output(error):
            streams.discard()
            return refused(f"standard output: {in_words(error)}", 1)
        return refused(in_words(error), 1 if error.errno in streams.FULL else 2)
    except ValueError as error:
        return refused(in_words(error))
    except RecursionError:
        return refused("what was given is nested too deeply")
    except MemoryError as error:
        return refused(f"there is not enough memory: {error}" if str(error) else "there is not enough memory")
    except Exception:
        from ..system.packages import foreign_decoders

        why = foreign_decoders()
        if why is None:
            raise
        return refused(why)
    return 0


def run(arguments: list[str]) -> None:
    """Run a command, or answer a shell that asks how one could go on."""
    instruction = os.environ.get("_GPT2_NP_COMPLETE")
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "gpt2-np", "_GPT2_NP_COMPLETE", instruction))
    with cli.make_context("gpt2-np", list(arguments)) as context:
        cli.invoke(context)


def warn(message: Warning | str, *others: Any, **more: Any) -> None:
    """A warning in one line on stderr."""
    print(f"warning: {one_line(str(message))}", file=sys.stderr)


def refused(message: str, status: int = 2) -> int:
    """One line on stderr; the exit status."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    return status
