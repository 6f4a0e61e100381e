"""``gpt2-np internals direct``, ``ablation-curve`` and ``keep``: what parts add, and what is left without some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from .internals import answers, draw, experiment, metric_of, rows_of, show
from .options import grouped
from .plain import dumps
from .progress import bar
from .readable import bos_option, load_readable

HOW = click.Choice(["zero", "mean", "position mean", "resample"])


@experiment("direct", "Show what each head, MLP and embedding adds to a logit directly.")
@click.argument("prompt")
@answers
@bos_option
@grouped(
    "Measure",
    "--position",
    type=int,
    default=-1,
    show_default=True,
    help="The position in the prompt whose next token is meant; -1 is the last.",
)
def direct(
    prompt: str,
    answer: str,
    versus: str | None,
    bos: bool,
    position: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Direct logit attribution: write the answer's logit (or its difference to --versus) as a sum with one term for
    each part of the model, at this run's scale of the final norm. Each layer has a row with its heads, its attention's
    bias and its MLP."""
    from ..internals.direct import direct as run

    gpt2 = load_readable(model, dtype)
    other = None if versus is None else gpt2.to_single_token(versus)
    found = run(gpt2, gpt2.to_ids(prompt, prepend_bos=bos), gpt2.to_single_token(answer), other, position=position)
    table = np.concatenate([found.heads, found.attention_biases[:, None], found.mlps[:, None]], axis=1)
    columns = [*(str(head) for head in range(found.heads.shape[1])), "bias", "mlp"]
    about = {
        name: round(float(getattr(found, name)), 6)
        for name in ("logit", "total", "embed", "pos_embed", "norm_bias", "scale")
    }
    show(table, as_json, row="layer", column="head", labels=columns, columns=columns, **about)
    title = f"What adds to {answer!r}" + ("" if versus is None else f" over {versus!r}")
    draw(out, lambda plots: plots.heat(table, title=title, x="head", y="layer", x_labels=columns, bar="logit"))


def heads_option(required: bool, help: str) -> Callable[..., Any]:
    """--head LAYER.HEAD, as often as wanted."""
    return grouped("Parts", "--head", "heads", multiple=True, required=required, metavar="LAYER.HEAD", help=help)


def head_of(text: str) -> tuple[int, int]:
    """``7.0`` → (7, 0)."""
    layer, point, head = text.partition(".")
    if not (point and layer.isdigit() and head.isdigit()):
        raise ValueError(f"a head is LAYER.HEAD, two numbers like 7.0, got {text!r}")
    return int(layer), int(head)


def silencing(function: Callable[..., Any]) -> Callable[..., Any]:
    """--how, --reference and --seed."""
    for option in (
        grouped("Ablation", "--seed", default=0, show_default=True, help="The seed that chooses the resampled text."),
        grouped(
            "Ablation",
            "--reference",
            type=click.Path(path_type=Path),
            help="A file of texts, from which the means are taken.",
        ),
        grouped(
            "Ablation",
            "--how",
            type=HOW,
            default="zero",
            show_default=True,
            help="What replaces the output of silenced parts.",
        ),
    ):
        function = option(function)
    return function


@experiment("ablation-curve", "Measure what is left as one head after another is silenced.")
@click.argument("prompt")
@answers
@bos_option
@silencing
@heads_option(False, "Silence these heads, in this order; repeatable.  [default: those that matter most alone]")
@grouped(
    "Parts", "--count", type=click.IntRange(min=1), default=10, show_default=True, help="The number of heads, by rank."
)
def ablation_curve(
    prompt: str,
    answer: str,
    versus: str | None,
    bos: bool,
    how: str,
    reference: Path | None,
    seed: int,
    heads: tuple[str, ...],
    count: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Silence heads one after another, and show the answer's log-probability (or logit difference) after each."""
    from ..internals.ablation import ablate
    from ..internals.kept_parts import ablation_curve as run

    gpt2 = load_readable(model, dtype)
    ids, metric = gpt2.to_ids(prompt, prepend_bos=bos), metric_of(gpt2, answer, versus)
    texts = None if reference is None else rows_of(gpt2, reference, len(ids))
    order: Sequence[tuple[int, int]] = [head_of(one) for one in heads]
    with bar(0, "run") as progress:
        if not order:
            alone = ablate(gpt2, ids, metric, progress=progress.update)
            order = [tuple(map(int, np.unravel_index(one, alone.shape))) for one in alone.argsort(axis=None)[:count]]  # type: ignore[misc]
        curve = run(gpt2, ids, metric, order, how=how, reference=texts, seed=seed, progress=progress.update)[:, 0]
    names = ["none", *(f"{layer}.{head}" for layer, head in order)]
    if as_json:
        print(dumps({"heads": names[1:], "how": how, "values": np.round(curve, 6).tolist()}))
    else:
        for name, value in zip(names, curve, strict=True):
            print(f"{name:>8} {value:10.4f}")
    measure = "log-probability" if versus is None else "logit difference"
    title = f"Heads silenced one after another ({how})"
    draw(out, lambda plots: plots.lines({measure: curve}, title=title, x="silent as well", y=measure, x_labels=names))


@experiment("keep", "Run a circuit of heads and MLPs alone, with all else silenced.")
@click.argument("prompt")
@answers
@bos_option
@silencing
@heads_option(True, "A head of the circuit; repeatable.")
@grouped(
    "Parts", "--mlp", "mlps", type=int, multiple=True, help="An MLP of the circuit; repeatable.  [default: all of them]"
)
def keep(
    prompt: str,
    answer: str,
    versus: str | None,
    bos: bool,
    how: str,
    reference: Path | None,
    seed: int,
    heads: tuple[str, ...],
    mlps: tuple[int, ...],
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Compare the answer's log-probability (or logit difference) of the whole model, of the circuit alone, of the rest
    without it, and with both silenced. A circuit is faithful if its value is near that of the whole model."""
    from ..internals.kept_parts import circuit_alone

    gpt2 = load_readable(model, dtype)
    ids, metric = gpt2.to_ids(prompt, prepend_bos=bos), metric_of(gpt2, answer, versus)
    texts = None if reference is None else rows_of(gpt2, reference, len(ids))
    found = circuit_alone(
        gpt2, ids, metric, [head_of(one) for one in heads], mlps or None, how=how, reference=texts, seed=seed
    )
    values = {name: float(value[0]) for name, value in found.items()}
    if as_json:
        print(dumps({"how": how, **{name: round(value, 6) for name, value in values.items()}}))
    else:
        for name, value in values.items():
            print(f"{name:>8} {value:10.4f}")
    measure = "log-probability" if versus is None else "logit difference"
    draw(out, lambda plots: plots.bars(list(values.values()), list(values), title="A circuit by itself", x=measure))
