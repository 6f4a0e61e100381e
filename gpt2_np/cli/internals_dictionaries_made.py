"""``gpt2-np internals evaluate-dictionary`` and ``train-dictionary``: how good a dictionary is; a new one."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .internals import draw, experiment
from .internals_corpus import CORPUS, texts_of
from .internals_dictionaries import dictionary_options, pictures
from .options import FC, grouped, length_option
from .plain import dumps
from .progress import bar, compiling

if TYPE_CHECKING:
    from ..internals.dictionaries import Evaluation


@experiment("evaluate-dictionary", "Measure how good a dictionary is on a corpus.")
@click.argument("corpus", type=CORPUS)
@dictionary_options
@length_option()
@grouped(
    "Corpus",
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="The number of texts in a batch.",
)
@grouped(
    "Output",
    "--sums",
    type=CORPUS,
    metavar="FILE",
    help="Write the sums, which `corpus merge` adds to those of other parts.",
)
def evaluate_dictionary(
    corpus: Path,
    dictionary: str,
    dictionary_id: str | None,
    length: int | None,
    batch_size: int,
    sums: Path | None,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Measure a dictionary on CORPUS: L0, explained variance, and what the model loses when the dictionary's
    reconstruction replaces the activation.

    The numbers and their names in --json are those of SAELens's run_evals and SAEBench's core evaluation. End-of-text
    tokens don't count.
    """
    from ..internals import dictionaries
    from ..internals.dictionaries.evaluation import summed
    from ..internals.dictionaries.sums import judged
    from ..text.gpt2 import GPT2

    sae = dictionaries.load(dictionary, dictionary_id)
    gpt2 = GPT2.from_pretrained(model, dtype=dtype)  # a corpus is read: by kernels, where there are some
    compiling(gpt2)
    with bar(0, "token") as progress:
        texts = texts_of(gpt2, corpus, length)
        added_up = summed(gpt2, sae, texts, batch=batch_size, progress=progress.update)
    found = added_up.evaluation()
    if sums is not None:
        judged(gpt2, sae, added_up).save(sums)
    if as_json:
        print(dumps({"hook_name": sae.hook_name, "architecture": sae.config.architecture} | found.as_json()))
    else:
        print(table(found))
    draw(out, lambda plots: pictures().densities(found.density))


def table(found: Evaluation) -> str:
    """The figures, a line each."""
    F = len(found.density)
    rows = [
        ("tokens", f"{found.tokens:,} in {found.texts:,} texts"),
        ("L0", f"{found.l0:.2f} of {F:,} features"),
        ("L1", f"{found.l1:.2f}"),
        ("explained variance", f"{found.explained_variance:.4f}"),
        ("mean squared error", f"{found.mse:.4f} a token"),
        ("cosine similarity", f"{found.cosine:.4f}"),
        ("length, in and out", f"{found.norm_in:.3f}, {found.norm_out:.3f}"),
        ("loss", f"{found.loss:.4f} nats a token"),
        ("… with the dictionary", f"{found.loss_spliced:.4f}"),
        ("… with zeros", f"{found.loss_ablated:.4f}"),
        ("share recovered", f"{found.score:.4f}"),
        ("KL with the dictionary", f"{found.kl_spliced:.4f} nats a token"),
        ("… with zeros", f"{found.kl_ablated:.4f}"),
        ("dead features", f"{len(found.dead):,} ({len(found.dead) / F:.1%}), never firing here"),
        ("dense features", f"{len(found.dense):,} ({len(found.dense) / F:.1%}), at more than 10% of the tokens"),
    ]
    return "\n".join(f"{name:>24}  {value}" for name, value in rows)


def settings_options(function: FC) -> FC:
    """Every setting of training, under its name and with its default there."""
    from ..internals.dictionaries.training.settings import Settings

    for one in reversed(fields(Settings)):
        if "help" in one.metadata:
            group, text = one.metadata["group"], one.metadata["help"]
            name, default = f"--{one.name.replace('_', '-')}", one.default
            if isinstance(default, bool):
                option = grouped(group, f"{name}/--no-{name[2:]}", default=default, show_default=True, help=text)
            else:
                option = grouped(group, name, type=type(default), default=default, show_default=True, help=text)
            function = option(function)
    return function


@experiment("train-dictionary", "Train a dictionary on captured activations.")
@click.argument("capture", type=CORPUS)
@click.argument("folder", type=CORPUS)
@grouped(
    "Place",
    "--hook-name",
    required=True,
    help="The activation that the dictionary reads, such as blocks.4.hook_resid_pre.",
)
@grouped("Place", "--hook-name-out", help="The activation that a transcoder predicts, such as blocks.4.hook_mlp_out.")
@grouped("Run", "--resume", is_flag=True, help="Resume from the last checkpoint in FOLDER, if there is one.")
@settings_options
def train_dictionary(
    capture: Path,
    folder: Path,
    hook_name: str,
    hook_name_out: str | None,
    resume: bool,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
    **settings: Any,
) -> None:
    """Train a sparse autoencoder or a transcoder on CAPTURE, which `internals capture` made. FOLDER becomes a
    dictionary's folder, which SAELens can read too. Ctrl-C saves and ends; the same command with --resume continues.

    \b
    gpt2-np internals capture corpus captured --names blocks.4.resid_pre --store float16
    gpt2-np internals train-dictionary captured sae --hook-name blocks.4.hook_resid_pre
    """
    from ..internals import dictionaries
    from ..internals.dictionaries.training import Report
    from ..training.checkpoint import rows
    from ..training.loop import Stopped

    with bar(settings["steps"], "step") as progress:

        def report(now: Report) -> None:
            progress.update(now.step - progress.n)
            text = f"loss {now.loss:.4g}, L0 {now.l0:.1f}, explained {now.explained:.3f}, dead {now.dead}"
            progress.set_postfix_str(text)

        about = {"model_name": model}
        try:
            dictionaries.train(
                capture, folder, hook_name, hook_name_out, resume=resume, metadata=about, report=report, **settings
            )
        except Stopped as stopped:
            progress.close()
            again = shlex.join([one for one in sys.argv[1:] if one != "--resume"])
            print(f"saved step {stopped.step} in {folder}; go on with: gpt2-np {again} --resume", file=sys.stderr)
            sys.exit(130)
    names, lines = rows(folder / "loss.csv") if (folder / "loss.csv").is_file() else ([], [])
    last = dict(zip(names, lines[-1], strict=True)) if lines else {}
    if as_json:
        print(dumps({"folder": str(folder)} | {name: float(value) for name, value in last.items() if value}))
    else:
        print(f"{folder}: " + ", ".join(f"{name} {value}" for name, value in last.items()))
    shown = [name for name in ("mse", "l0") if name in names]
    curves = {name: np.array([float(line[names.index(name)] or "nan") for line in lines]) for name in shown}
    steps = [line[0] for line in lines]
    title = "Training a dictionary"
    draw(out, lambda plots: plots.lines(curves, title=title, x="step", y="mean squared error, L0", x_labels=steps))
