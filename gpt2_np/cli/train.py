"""``gpt2-np train``: fine-tune a model on texts, or train a small one from scratch."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import FC, GroupedCommand, backend_option, grouped, model_option
from .progress import COMPILING, bar

if TYPE_CHECKING:
    from ..training import Report


def number(
    group: str, name: str, kind: type | click.Choice[str], default: float | str, text: str
) -> Callable[[FC], FC]:
    """An option that is one of `training.Settings`, under its name there."""
    return grouped(group, f"--{name}", type=kind, default=default, show_default=True, help=text)


@click.command(cls=GroupedCommand, short_help="Fine-tune a model on texts, or train one from scratch.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@grouped(
    "Run",
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The run's folder, which is also a model's folder.",
)
@grouped("Run", "--resume", is_flag=True, help="Resume from the last checkpoint in --out, if there is one.")
@number("Run", "steps", int, 100, "The number of steps.")
@number("Run", "save-steps", int, 100, "The number of steps between checkpoints.")
@number(
    "Run", "eval-steps", int, 50, "The number of steps between evaluations on the held-out text, each with a sample."
)
@number("Run", "seed", int, 0, "The seed that decides the order of the text.")
@number("Text", "batch-size", int, 8, "The number of rows in a batch.")
@number("Text", "gradient-accumulation-steps", int, 1, "The number of batches in a step.")
@grouped("Text", "--context", type=int, help="The number of ids in a row.  [default: 128, or the model's context]")
@number("Text", "held-out", float, 0.05, "The share of the documents that is held out.")
@number("Text", "sample-prompt", str, "", "The prompt of the samples.")
@number("Text", "sample-tokens", int, 60, "The number of tokens in a sample; 0 turns samples off.")
@number("Learning", "learning-rate", float, 1e-4, "The learning rate at its peak.")
@number(
    "Learning", "lr-scheduler-type", str, "cosine", "The schedule of the learning rate, by its name in transformers."
)
@number("Learning", "warmup-steps", int, 0, "The number of steps in which the learning rate rises.")
@number("Learning", "weight-decay", float, 0.01, "AdamW's decoupled weight decay.")
@number(
    "Learning",
    "decayed",
    click.Choice(["matrices", "all"]),
    "matrices",
    "The parameters that decay: matrices alone, or all.",
)
@number("Learning", "max-grad-norm", float, 1.0, "Clip gradients to this norm; 0 turns clipping off.")
@number(
    "Learning",
    "lora-rank",
    int,
    0,
    "Train LoRA adapters of this rank and leave the model's weights as they are; 0 trains the weights.",
)
@number("Learning", "lora-alpha", float, 0.0, "The adapters' scale times their rank; 0 means twice the rank.")
@model_option()
@grouped("Model", "--n-layer", type=int, help="Train a new model of this many layers, with the vocabulary of --model.")
@grouped("Model", "--n-embd", type=int, help="The width of a new model.")
@grouped("Model", "--n-head", type=int, help="The number of heads of a new model.")
@grouped("Model", "--n-positions", type=int, help="The number of positions of a new model.")
@backend_option("The implementation that computes.")
def train(
    files: tuple[Path, ...],
    out: Path,
    resume: bool,
    model: str,
    context: int | None,
    n_layer: int | None,
    n_embd: int | None,
    n_head: int | None,
    n_positions: int | None,
    backend: str | None,
    **settings: Any,
) -> None:
    """Train a model on FILES: text, whose documents are separated by a line <|endoftext|>, or JSONL with "text" or
    "ids".

    --out becomes a model's folder, which generate and transformers can load; it also holds the loss curve (loss.csv,
    loss.png) and samples. Ctrl-C saves and ends; the same command with --resume continues.

    \b
    gpt2-np train book.txt --out runs/book --steps 200
    gpt2-np train book.txt --out runs/book --steps 200 --resume
    gpt2-np generate "It was" --model runs/book
    """
    from ..text.gpt2 import GPT2
    from ..training import Stopped, initial
    from ..training import train as run

    gpt2 = GPT2.from_pretrained(model, backend=backend)
    shape = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "n_positions": n_positions}
    given: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
    if given:
        config = replace(gpt2.config, **given)
        gpt2 = GPT2(initial(config, settings["seed"]), config, folder=gpt2.folder, backend=backend)
    settings |= {"context": min(128, gpt2.config.n_positions) if context is None else context, "backend": gpt2.backend}
    shown = Shown(settings["steps"])
    try:
        run(gpt2, files, out, resume=resume, report=shown, name=model, **settings)
    except Stopped as stopped:
        shown.close()
        again = shlex.join([one for one in sys.argv[1:] if one != "--resume"])
        print(f"saved step {stopped.step} in {out}; go on with: gpt2-np {again} --resume", file=sys.stderr)
        sys.exit(130)
    finally:
        shown.close()
    print(
        f"{out} holds the model; see its loss.csv" if shown.steps else f"{out} is at its end already", file=sys.stderr
    )


class Shown:
    """Progress on stderr: a bar on a terminal, elsewhere a line now and then."""

    EVERY = 30.0  # seconds between lines
    BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # without tqdm's own rate, which counts compilation

    def __init__(self, total: int) -> None:
        from ..engine.kernels import code_cache

        self.total, self.steps, self.last = total, 0, 0.0
        self.bar = bar(total, "step", self.BAR) if sys.stderr.isatty() else None
        self.watchers = code_cache.watchers
        self.watchers.append(self.compiling)

    def compiling(self) -> None:
        """Before a kernel is compiled: the first step on a machine takes half a minute."""
        if self.bar is not None:
            self.bar.set_postfix_str(COMPILING)

    def __call__(self, report: Report) -> None:
        """After a step."""
        self.steps += 1
        held = "" if report.held_out is None else f", held out {report.held_out:.3f}"
        left = f"{report.seconds_left / 60:.1f} min left"
        text = f"loss {report.loss:.3f}{held}, {report.tokens_per_second:,.0f} tokens/s, {left}"
        if self.bar is not None:
            self.bar.n = report.step
            self.bar.set_postfix_str(text)
            if report.sample is not None:
                self.bar.write(f"--- step {report.step}{held}\n{report.sample}", file=sys.stderr)
            return
        now = time.monotonic()
        if held or self.steps == 1 or now - self.last >= self.EVERY:
            print(f"step {report.step}/{report.steps}: {text}", file=sys.stderr, flush=True)
            self.last = now

    def close(self) -> None:
        """Take the bar away."""
        if self.compiling in self.watchers:
            self.watchers.remove(self.compiling)
        if self.bar is not None:
            self.bar.close()
