"""The command line: ``gpt2-np generate | logits | score | choose | parity | inspect | …``. Thin: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import click

from ..version import __version__

# What `internals` is made of: the group first, then the modules that give it commands.
INTERNALS = [
    "internals",
    "internals_backward",
    "internals_circuits",
    "internals_corpus",
    "internals_lenses",
    "internals_parts",
    "internals_states",
    "internals_tasks",
]
# Each command: the modules that make it, loaded when it is called, and its name in the first of them.
COMMANDS = {
    "generate": (["generate"], "generate"),
    "logits": (["look"], "logits"),
    "score": (["score"], "score"),
    "choose": (["choose"], "choose"),
    "info": (["look"], "info"),
    "parity": (["parity"], "parity"),
    "train": (["train"], "train"),
    "inspect": (["inspect"], "inspect_command"),
    "internals": (INTERNALS, "internals_group"),
}


class Commands(click.Group):
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
        refuse(in_words(error))
    except RecursionError:
        refuse("what was given is nested too deeply")
    except MemoryError as error:
        refuse(f"there is not enough memory: {error}" if str(error) else "there is not enough memory")


def in_words(error: Exception) -> str:
    """An error's text, the operating system's as "NAME: reason"."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def refuse(message: str) -> None:
    """One line on stderr, exit status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
