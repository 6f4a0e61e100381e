"""``gpt2-np internals``: the experiments on a model's insides, each with a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .options import FC, GroupedCommand, grouped
from .plain import dumps
from .progress import bar
from .readable import bos_option, load_readable, readable_model_options
from .suggestions import Suggesting

if TYPE_CHECKING:
    from ..internals.variants import Metric
    from ..text.gpt2 import GPT2

Array = np.ndarray
PICTURES = (".png", ".svg", ".pdf", ".jpg", ".webp")


@click.group(
    "internals",
    cls=Suggesting,
    short_help="Run experiments on the model's internals, with pictures.",
    invoke_without_command=True,
)
@click.pass_context
def internals_group(context: click.Context) -> None:
    """Run experiments: lenses, direct logits, patching, attribution, ablation, circuits, steering, neurons, captures.

    Each command prints a table (or, with --json, one JSON object). With --out it also draws a picture (.png, .svg or
    .pdf; this needs the 'plots' extra).
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def experiment(name: str, summary: str) -> Callable[[Callable[..., None]], click.Command]:
    """A subcommand with the model's options, --out and --json."""

    def decorate(function: Callable[..., None]) -> click.Command:
        function = grouped("Output", "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(
            readable_model_options(function)
        )
        picture = grouped(
            "Output",
            "-o",
            "--out",
            type=click.Path(path_type=Path),
            callback=check_picture,
            help="Draw a picture into this file.",
        )
        function = picture(function)
        return internals_group.command(name, cls=GroupedCommand, short_help=summary)(function)

    return decorate


def answers(function: FC) -> FC:
    """--answer and --versus: what a sweep measures."""
    function = grouped("Measure", "--versus", help="Measure the logit difference to this token.")(function)
    return grouped("Measure", "--answer", required=True, help="The token that the prompt should lead to.")(function)


def of_activations(group: str, does: str) -> Callable[[FC], FC]:
    """--point and --over: which activation of every block, and what of it is told apart."""

    def decorate(function: FC) -> FC:
        over = click.Choice(["layer", "position", "head"])
        function = grouped(group, "--over", type=over, default="position", show_default=True, help=does)(function)
        name = "The name of an activation within a block."
        return grouped(group, "--point", default="resid_pre", show_default=True, help=name)(function)

    return decorate


def metric_of(gpt2: GPT2, answer: str, versus: str | None) -> Metric:
    """The log-probability of an answer, or the logit difference between two."""
    from ..internals.variants import log_probability, logit_difference

    right = gpt2.to_single_token(answer)
    return log_probability(right) if versus is None else logit_difference(right, gpt2.to_single_token(versus))


def show(
    values: Array, as_json: bool, *, row: str, column: str, labels: Sequence[str] | None = None, **about: object
) -> None:
    """A matrix of numbers as a table with named rows and columns, or as JSON beside `about`."""
    table = values.reshape(values.shape[0], -1)
    if as_json:
        print(dumps(about | {"rows": row, "columns": column, "values": np.round(values, 6).tolist()}))
        return
    for name, value in about.items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    names = list(labels) if labels is not None else [str(number) for number in range(table.shape[1])]
    widths = [max(7, len(name) + 1) for name in names]
    heading = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    print(f"{row + ' / ' + column:>16}{heading}")
    for number, line in enumerate(table):
        print(f"{number:>16}" + "".join(f"{value:>{width}.3f}" for value, width in zip(line, widths, strict=True)))


def draw(out: Path | None, figure: Callable[[Any], Any]) -> None:
    """The picture, where one was asked for: ``figure(plots)`` makes it."""
    if out is None:
        return
    from ..internals import plots

    plots.save(figure(plots), out)


def check_picture(context: click.Context, option: click.Parameter, out: Path | None) -> Path | None:
    """Refuses, before any work, a picture that could not be drawn."""
    if out is None:
        return None
    if out.suffix.lower() not in PICTURES:
        raise ValueError(f"--out must end in one of {', '.join(PICTURES)}, got {str(out)!r}")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError("pictures need matplotlib: pip install 'gpt2-np[plots]'") from None
    return out


@experiment("lens", "Show what each layer would predict next (the logit lens).")
@click.argument("prompt")
@bos_option
@grouped("Lens", "--tuned", type=click.Path(path_type=Path), help="Use a tuned lens, made by `internals tune`.")
@grouped(
    "Lens",
    "--jacobian",
    type=click.Path(path_type=Path),
    help="Use a Jacobian lens, made by `internals jacobian-lens`.",
)
def lens(
    prompt: str,
    bos: bool,
    tuned: Path | None,
    jacobian: Path | None,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """The logit lens: put each layer's residual stream through the final norm and the unembedding, after each token of
    PROMPT."""
    from ..internals import jacobian_lens
    from ..internals.lens import TunedLens, logit_lens

    if tuned is not None and jacobian is not None:
        raise ValueError("--tuned and --jacobian are two lenses: give one of them")
    fitted = (
        jacobian_lens.load(jacobian) if jacobian is not None else (None if tuned is None else TunedLens.load(tuned))
    )
    gpt2 = load_readable(model, dtype)
    ids = gpt2.to_ids(prompt, prepend_bos=bos)
    looked = logit_lens(gpt2, ids) if fitted is None else fitted(gpt2, ids)
    tokens = gpt2.tokenizer.tokens(ids)
    best, p = looked.top(1)
    words = [gpt2.tokenizer.tokens(row[:, 0]) for row in best]
    if as_json:
        print(
            dumps(
                {
                    "tokens": tokens,
                    "labels": looked.labels,
                    "top": words,
                    "probability": np.round(p[..., 0], 6).tolist(),
                }
            )
        )
    else:
        for at, token in enumerate(tokens):
            said = "  ".join(
                f"{word!r} {chance:.0%}" for word, chance in zip([row[at] for row in words], p[:, at, 0], strict=True)
            )
            print(f"{token!r:>14} → {said}")

    title = "Tuned lens" if tuned else "Jacobian lens" if jacobian else "Logit lens"
    draw(out, lambda plots: plots.lens(looked, tokens, gpt2.tokenizer.decode, title=title))


@experiment("heads", "Find previous-token, duplicate-token and induction heads.")
@grouped(
    "Text",
    "--length",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="The number of tokens that are repeated.",
)
@grouped(
    "Text", "--rows", type=click.IntRange(min=1), default=4, show_default=True, help="The number of random sequences."
)
@grouped(
    "Text", "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The seed of the random sequences."
)
@grouped("Text", "--text", help="Repeat this text instead of random tokens.")
def heads(
    length: int, rows: int, seed: int, text: str | None, out: Path | None, as_json: bool, model: str, dtype: str
) -> None:
    """Measure the previous-token, duplicate-token and induction scores of every head on repeated sequences."""
    from ..internals import heads as science

    gpt2 = load_readable(model, dtype)
    ids = (
        None
        if text is None
        else science.repeated(gpt2.tokenizer.encode(text, add_special_tokens=False), gpt2.prompt_ids("")[0])
    )
    scores = science.all_head_scores(gpt2, ids, length=length, rows=rows, seed=seed)
    if as_json:
        print(dumps({kind: np.round(values, 6).tolist() for kind, values in scores.items()}))
    else:
        for kind, values in scores.items():
            show(values, False, row="layer", column="head", kind=kind)
    draw(out, lambda plots: plots.all_head_scores(scores))


@experiment("attention", "Show one head's attention pattern.")
@click.argument("prompt")
@bos_option
@grouped("Head", "--layer", type=int, required=True, help="The head's layer, counted from 0.")
@grouped("Head", "--head", type=int, required=True, help="The head's number in its layer, counted from 0.")
def attention(
    prompt: str, bos: bool, layer: int, head: int, out: Path | None, as_json: bool, model: str, dtype: str
) -> None:
    """Show one head's attention pattern over PROMPT, with a row for each query position and a column for each key
    position."""
    from ..internals.circuits import check_head
    from ..internals.labels import visible

    gpt2 = load_readable(model, dtype)
    check_head(gpt2.config, layer, head)
    ids = gpt2.to_ids(prompt, prepend_bos=bos)
    pattern = gpt2.run_with_cache(ids, f"blocks.{layer}.attn.pattern")[1]["pattern", layer][0, head]
    tokens = gpt2.tokenizer.tokens(ids)
    show(pattern, as_json, row="looking", column="looked at", labels=[visible(token) for token in tokens])
    draw(out, lambda plots: plots.attention(pattern, tokens, title=f"Layer {layer}, head {head}"))


@experiment("ablate", "Measure what is lost when a part is silenced.")
@click.argument("prompt")
@answers
@bos_option
@grouped(
    "Ablation",
    "--what",
    type=click.Choice(["heads", "mlps", "attention", "positions"]),
    default="heads",
    show_default=True,
    help="The parts to silence one by one.",
)
@grouped(
    "Ablation",
    "--how",
    type=click.Choice(["zero", "mean", "resample"]),
    default="zero",
    show_default=True,
    help="What replaces a silenced part's output.",
)
@grouped(
    "Ablation",
    "--reference",
    type=click.Path(path_type=Path),
    help="A file of texts, from which mean and resample take their values.",
)
@grouped(
    "Ablation",
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The seed that chooses the resampled text.",
)
def ablate(
    prompt: str,
    answer: str,
    versus: str | None,
    bos: bool,
    what: str,
    how: str,
    reference: Path | None,
    seed: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Measure how the answer's log-probability (or logit difference) changes when each head, MLP or position is
    silenced."""
    from ..internals.ablation import ablate as run
    from ..internals.labels import visible

    gpt2 = load_readable(model, dtype)
    ids, metric = gpt2.to_ids(prompt, prepend_bos=bos), metric_of(gpt2, answer, versus)
    texts = None if reference is None else rows_of(gpt2, reference, max(len(ids), 16))
    whole = float(metric(gpt2(np.atleast_2d(ids)))[0])
    with bar(0, "run") as progress:
        scores = run(gpt2, ids, metric, what=what, how=how, reference=texts, seed=seed, progress=progress.update)
    change = np.atleast_2d(scores.T).T - whole
    column = {"heads": "head", "positions": "position"}.get(what, what)
    labels = gpt2.tokenizer.tokens(ids) if what == "positions" else None
    show(
        change,
        as_json,
        row="layer",
        column=column,
        labels=labels and [visible(token) for token in labels],
        whole=whole,
        what=what,
        how=how,
    )
    measure = "log-probability" if versus is None else "logit difference"
    draw(
        out,
        lambda plots: plots.heat(
            change,
            title=f"{how} ablation of {what}",
            x=column,
            y="layer",
            x_labels=labels or (None if what == "heads" else [""]),
            bar=f"change of the {measure}",
        ),
    )


def rows_of(gpt2: GPT2, path: Path, length: int) -> Array:
    """The first texts of a file, all of one length: (n, length)."""
    from ..internals.corpus import read_corpus

    texts = [text for text in read_corpus(path, gpt2.tokenizer, length=length) if len(text) == length][:64]
    if not texts:
        raise ValueError(f"{path} must hold at least {length} tokens")
    return np.array(texts)
