"""``gpt2-np internals features``, ``feature``, ``feature-attribution`` and ``feature-steer``: a dictionary in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .internals import answers, draw, experiment
from .internals_corpus import CORPUS, examples_option, texts_of
from .options import FC, grouped, length_option
from .plain import dumps
from .progress import bar
from .readable import bos_option, load_readable

if TYPE_CHECKING:
    from ..internals.dictionaries import Dashboard, Dictionary
    from ..text.gpt2 import GPT2

WIDTH = 24  # characters of the longest bar


def dictionary_options(function: FC) -> FC:
    """--dictionary and --dictionary-id."""
    ident = grouped(
        "Dictionary", "--dictionary-id", metavar="ID", help="The dictionary's id within a release, or a sub-folder."
    )
    name = grouped(
        "Dictionary",
        "--dictionary",
        metavar="NAME",
        default="tales",
        show_default=True,
        help="A folder with SAELens's files, a hub id, a release of SAELens's for GPT-2, or tales.",
    )
    return name(ident(function))


def named(dictionary: Dictionary, feature: int) -> str:
    """A feature's number, and its name where it has one."""
    name = dictionary.names.get(feature)
    return f"{feature}" if name is None else f"{feature} ({name})"


@experiment("features", "Show which features of a dictionary fire on a prompt.")
@click.argument("prompt")
@bos_option
@dictionary_options
@grouped(
    "Output",
    "--top",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="The number of features to list for each token.",
)
def features(
    prompt: str,
    bos: bool,
    dictionary: str,
    dictionary_id: str | None,
    top: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """List the features that fire most at each token of PROMPT, and the share of the activation that the dictionary
    misses.

    \b
    gpt2-np internals features "The king said to his mother"
    gpt2-np internals features "When Mary and John" --model gpt2 --dictionary gpt2-small-res-jb \\
        --dictionary-id blocks.8.hook_resid_pre
    """
    from ..internals import dictionaries
    from ..internals.labels import visible

    sae = dictionaries.load(dictionary, dictionary_id)
    gpt2 = load_readable(model, dtype)
    found = dictionaries.fires(gpt2, sae, prompt, prepend_bos=bos)
    tokens = gpt2.tokenizer.tokens(found.ids.tolist())
    rows = [list(zip(*(one.tolist() for one in found.at(at, top)), strict=True)) for at in range(len(tokens))]
    if as_json:
        print(
            dumps(
                {
                    "hook_name": sae.hook_name,
                    "tokens": tokens,
                    "missed": np.round(found.missed, 6).tolist(),
                    "features": [
                        [{"feature": one, "value": round(value, 6), "name": sae.names.get(one)} for one, value in row]
                        for row in rows
                    ],
                }
            )
        )
    else:
        # The first token's activation is unlike all others: bars are measured by the rest.
        most = max((abs(value) for row in rows[1:] or rows for _, value in row), default=1.0)
        print(f"{'token':>14}  missed  features of {sae.hook_name}")
        for token, missed, row in zip(tokens, found.missed.tolist(), rows, strict=True):
            start = f"{visible(token):>14}  {missed:6.0%}  "
            for one, value in row or [(-1, 0.0)]:
                length = min(WIDTH, round(WIDTH * abs(value) / most))
                word = "none" if one < 0 else f"{value:8.2f} {'█' * length:<{WIDTH}} {named(sae, one)}"
                print(f"{start}{word}".rstrip())
                start = " " * len(start)
    draw(out, lambda plots: pictures().features(found, tokens, sae.names))


def pictures() -> Any:
    """The module that draws dictionaries."""
    from ..internals import plots_dictionaries

    return plots_dictionaries


@experiment("feature", "Show where in a corpus features fire, how often, and which words they raise or lower.")
@click.argument("corpus", type=CORPUS)
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="FEATURE...")
@dictionary_options
@length_option()
@examples_option
@grouped(
    "Output",
    "--words",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="The number of raised and of lowered words to list.",
)
def feature(
    corpus: Path,
    numbers: tuple[int, ...],
    dictionary: str,
    dictionary_id: str | None,
    length: int | None,
    examples: int,
    words: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Show a dashboard of each FEATURE over CORPUS, a text file or a folder of .txt files, which is read once as a
    stream.

    --json prints one object for each feature; --out draws the first feature.
    """
    from ..internals import dictionaries

    sae = dictionaries.load(dictionary, dictionary_id)
    gpt2 = load_readable(model, dtype)
    with bar(0, "token") as progress:
        boards = dictionaries.dashboards(
            gpt2, sae, texts_of(gpt2, corpus, length), numbers, examples=examples, words=words, progress=progress.update
        )
    for board in boards:
        told = as_plain(gpt2, sae, board)
        print(dumps(told) if as_json else in_lines(told))
    draw(out, lambda plots: pictures().dashboard(boards[0], gpt2.tokenizer.decode, sae.names))


def as_plain(gpt2: GPT2, sae: Dictionary, board: Dashboard) -> dict[str, Any]:
    """A dashboard as JSON can say it."""
    decode, tokens = gpt2.tokenizer.decode, gpt2.tokenizer.tokens
    places = []
    for one in board.examples:
        at = one.position - one.start
        place = {"value": one.value, "text": one.text, "position": one.position}
        text = {"before": decode(one.ids[:at]), "token": decode([one.ids[at]]), "after": decode(one.ids[at + 1 :])}
        places.append(place | text)
    return {
        "feature": board.feature,
        "name": sae.names.get(board.feature),
        "tokens": board.tokens,
        "density": board.density,
        "raises": tokens(board.raises),
        "lowers": tokens(board.lowers),
        "histogram": {"zeros": board.zeros, "counts": board.histogram.tolist(), "edges": board.edges.tolist()},
        "examples": places,
    }


def in_lines(told: dict[str, Any]) -> str:
    """A dashboard for people to read."""
    name = "" if told["name"] is None else f": {told['name']}"
    lines = [f"feature {told['feature']}{name}", f"fires at {told['density']:.3%} of {told['tokens']:,} tokens"]
    lines += [f"{what}: {' '.join(map(repr, told[what]))}" for what in ("raises", "lowers") if told[what]]
    counts, edges = told["histogram"]["counts"], told["histogram"]["edges"]
    lines.append(f"{'0':>17}  {told['histogram']['zeros']:>9,}")
    most = max(counts, default=0)
    halves = [(start, sum(counts[start : start + 4])) for start in range(0, len(counts), 4)] if most else []
    for start, count in halves:
        size = round(WIDTH * count / max(one for _, one in halves))
        lines.append(f"{edges[start]:7.2f} – {edges[start + 4]:7.2f}  {count:>9,} {'█' * size}".rstrip())
    for place in told["examples"]:
        lines.append(f"{place['value']:8.2f}  {place['before']!r} [{place['token']!r}] {place['after']!r}")
    return "\n".join(lines)


@experiment("feature-attribution", "Attribute an answer to a dictionary's features.")
@click.argument("prompt")
@answers
@bos_option
@dictionary_options
@grouped(
    "Measure", "--direct", is_flag=True, help="Count only what the last token's features add to the logit directly."
)
@grouped(
    "Output", "--top", type=click.IntRange(min=1), default=15, show_default=True, help="The number of features to list."
)
def feature_attribution(
    prompt: str,
    answer: str,
    versus: str | None,
    bos: bool,
    dictionary: str,
    dictionary_id: str | None,
    direct: bool,
    top: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Show each feature's activation times the gradient of the answer's log-probability (or logit difference), by
    token."""
    from ..gradients import log_probability, logit_difference
    from ..internals import dictionaries
    from ..internals.labels import visible

    sae = dictionaries.load(dictionary, dictionary_id)
    gpt2 = load_readable(model, dtype)
    right, other = gpt2.to_single_token(answer), None if versus is None else gpt2.to_single_token(versus)
    ids = gpt2.to_ids(prompt, prepend_bos=bos)
    tokens = gpt2.tokenizer.tokens(ids)
    if direct:
        added = dictionaries.direct(gpt2, sae, ids, right, other)
        numbers, values = dictionaries.firing.strongest(added.features, top)
        rows = [(len(tokens) - 1, int(one), float(value)) for one, value in zip(numbers, values, strict=True)]
        rest = {"rest": added.rest, "logit": added.logit}
    else:
        metric = log_probability(right) if other is None else logit_difference(right, other)
        found = dictionaries.attribute(gpt2, sae, ids, metric)
        rows = found.top(top)
        rest = {"error": float(found.error.sum()), "bias": float(found.bias.sum()), "value": found.value}
        rest |= {"features": float(found.scores.sum())}
    if as_json:
        listed = [
            {"position": at, "token": tokens[at], "feature": one, "name": sae.names.get(one), "score": round(score, 6)}
            for at, one, score in rows
        ]
        print(dumps({"hook_name": sae.hook_name, **rest, "top": listed}))
    else:
        print("  ".join(f"{name}: {value:.4f}" for name, value in rest.items()))
        for at, one, score in rows:
            print(f"{score:9.4f}  {at:>4} {visible(tokens[at]):>12}  {named(sae, one)}")
    labels = [f"{tokens[at]} · {one}" for at, one, _ in rows]
    title = f"What features do for {answer!r}" + ("" if versus is None else f" over {versus!r}")
    draw(out, lambda plots: plots.bars(np.array([score for *_, score in rows]), labels, title=title, x="score"))


def changing(function: FC) -> FC:
    """--ablate, --scale, --add and --set."""
    words = (
        ("--set", "value", "FEATURE=VALUE", "Hold a feature at a value; repeatable."),
        ("--add", "add", "FEATURE=VALUE", "Add to a feature at every position; repeatable."),
        ("--scale", "scale", "FEATURE=FACTOR", "Multiply a feature; repeatable."),
        ("--ablate", "ablate", "FEATURE", "Silence a feature; repeatable."),
    )
    for option, name, metavar, text in words:
        kind = int if name == "ablate" else str
        function = grouped("Features", option, name, multiple=True, type=kind, metavar=metavar, help=text)(function)
    return function


def pairs(option: str, given: Sequence[str]) -> dict[int, float]:
    """``("12=8.5",)`` → ``{12: 8.5}``. ``ValueError`` for what is written otherwise."""
    found = {}
    for text in given:
        feature, mark, value = text.partition("=")
        try:
            found[int(feature)] = float(value)
        except ValueError:
            mark = ""
        if not mark:
            raise ValueError(f"{option} is FEATURE=NUMBER, like 12=8.5, got {text!r}")
    return found


@experiment("feature-steer", "Generate with features silenced, scaled, added or set.")
@click.argument("prompt")
@bos_option
@dictionary_options
@changing
@grouped("Dictionary", "--without-error", is_flag=True, help="Leave out the dictionary's reconstruction error.")
@grouped(
    "Writing",
    "--max-new-tokens",
    type=int,
    default=50,
    show_default=True,
    help="The number of tokens to generate at most.",
)
@grouped("Writing", "--do-sample", is_flag=True, help="Sample tokens instead of taking the likeliest.")
@grouped("Writing", "--seed", type=int, default=0, show_default=True, help="The seed of the samples.")
def feature_steer(
    prompt: str,
    bos: bool,
    dictionary: str,
    dictionary_id: str | None,
    ablate: tuple[int, ...],
    scale: tuple[str, ...],
    add: tuple[str, ...],
    value: tuple[str, ...],
    without_error: bool,
    max_new_tokens: int,
    do_sample: bool,
    seed: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Continue PROMPT without and with changes to features.

    \b
    gpt2-np internals feature-steer "Once upon a time" --add 1234=8
    """
    from ..internals import dictionaries

    if out is not None:
        raise ValueError("feature-steer draws no picture; --out is for the other experiments")
    sae = dictionaries.load(dictionary, dictionary_id)
    changes: dict[str, Any] = {name: pairs(f"--{name}", given) for name, given in (("scale", scale), ("add", add))} | {
        "value": pairs("--set", value),
        "ablate": ablate,
    }
    gpt2 = load_readable(model, dtype)
    changed = dictionaries.spliced(gpt2, sae, error=not without_error, **changes)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if do_sample:
        options |= {"do_sample": True, "seed": seed}
    ids = gpt2.to_ids(prompt, prepend_bos=bos)
    writers: dict[str, Callable[..., Any]] = {"plain": gpt2.generate, "changed": changed.generate}
    texts = {name: write(ids, **options).text for name, write in writers.items()}
    print(dumps(texts) if as_json else "\n".join(f"--- {name}\n{prompt}{text}" for name, text in texts.items()))
