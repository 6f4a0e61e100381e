"""The command line: ``gpt2-np generate | logits | score | choose | parity | inspect | …``. Thin: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys

import click

from ..version import __version__
from . import internals_circuits as internals_circuits
from . import internals_corpus as internals_corpus
from .choose import choose
from .generate import generate
from .inspect import inspect_command
from .internals import internals_group
from .look import info, logits
from .parity import parity
from .score import score


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, invoke_without_command=True
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


for command in (generate, logits, score, choose, info, parity, inspect_command, internals_group):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave: 0 when it worked, 2 with one line on stderr for a user's mistake, 130 on Ctrl-C."""
    try:
        cli.main(arguments, prog_name="gpt2-np", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print(file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        refuse(error.format_message())
    except BrokenPipeError:
        # The reader has gone (`| head`): nothing is wrong, and Python must not complain when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (ValueError, OSError) as error:
        refuse(explain(error))
    except MemoryError as error:
        refuse(f"there is not enough memory: {error}" if str(error) else "there is not enough memory")


def explain(error: Exception) -> str:
    """An error's text, the operating system's as "NAME: reason"."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def refuse(message: str) -> None:
    """One line on stderr, exit status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
