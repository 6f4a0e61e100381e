"""The experiments of ``gpt2-np internals`` that read a corpus or write text: neuron, tune, capture, steer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .internals import draw, experiment
from .options import capture_options, grouped, length_option
from .plain import dumps
from .progress import bar
from .readable import bos_option, load_readable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..text.gpt2 import GPT2

CORPUS = click.Path(path_type=Path)
examples_option = grouped(
    "Output",
    "--examples",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="The number of example texts to show.",
)


def texts_of(gpt2: GPT2, corpus: Path, length: int | None) -> Iterator[list[int]]:
    """A corpus as texts of ids that fit the model, each beginning with end-of-text."""
    from ..internals.corpus import read_corpus

    context = gpt2.config.n_positions
    if length is not None and length > context:
        raise ValueError(f"--length must be at most {context}, the model's context, got {length}")
    return read_corpus(corpus, gpt2.tokenizer, length=length or min(context, 256), start=gpt2.prompt_ids("")[0])


@experiment("neuron", "Show where an MLP neuron fires and which words it raises.")
@click.argument("layer", type=int)
@click.argument("neuron", type=int)
@click.argument("corpus", type=CORPUS)
@length_option()
@examples_option
def neuron(
    layer: int,
    neuron: int,
    corpus: Path,
    length: int | None,
    examples: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Show a dashboard of one NEURON of a LAYER over CORPUS, a text file or a folder of .txt files."""
    from ..internals.neurons import dashboards

    gpt2 = load_readable(model, dtype)
    with bar(0, "token") as progress:
        board = dashboards(
            gpt2, texts_of(gpt2, corpus, length), [(layer, neuron)], examples=examples, progress=progress.update
        )[0]
    decode = gpt2.tokenizer.decode
    found = []
    for one in board.examples:
        at = one.position - one.start
        found.append(
            {
                "value": one.value,
                "text": one.text,
                "position": one.position,
                "before": decode(one.ids[:at]),
                "token": decode([one.ids[at]]),
                "after": decode(one.ids[at + 1 :]),
            }
        )
    words = {"raises": gpt2.tokenizer.tokens(board.raises), "lowers": gpt2.tokenizer.tokens(board.lowers)}
    if as_json:
        print(dumps({"layer": layer, "neuron": neuron, "share_active": board.share_active, **words, "examples": found}))
    else:
        print(f"active at {board.share_active:.2%} of positions")
        for name, tokens in words.items():
            print(f"{name}: {' '.join(map(repr, tokens))}")
        if not found:
            print("it fires nowhere in this corpus")
        for place in found:
            print(f"{place['value']:7.2f}  {place['before']!r} [{place['token']!r}] {place['after']!r}")
    draw(out, lambda plots: plots.dashboard(board, decode))


@experiment("tune", "Train a tuned lens on a corpus, by least squares.")
@click.argument("corpus", type=CORPUS)
@click.argument("lens", type=CORPUS)
@length_option()
@grouped(
    "Lens",
    "--ridge",
    default=1e-3,
    show_default=True,
    help="The strength of the ridge penalty, which holds the lens near the logit lens.",
)
def tune(
    corpus: Path, lens: Path, length: int | None, ridge: float, out: Path | None, as_json: bool, model: str, dtype: str
) -> None:
    """Fit a tuned lens on CORPUS and write it to the file LENS; `internals lens --tuned` uses it.

    One text in ten is held out. The figures that are printed come from up to 20 of these.
    """
    import numpy as np

    from ..internals.lens import FEWEST, HeldOut, divergences, train_tuned_lens

    gpt2 = load_readable(model, dtype)
    texts = HeldOut(texts_of(gpt2, corpus, length))
    with bar(0, "token") as progress:
        tuned = train_tuned_lens(gpt2, texts, ridge=ridge, progress=progress.update)
    tuned.save(lens)
    if texts.held_out:
        of = f"{len(texts.held_out)} texts that were held out"
    else:
        of = "the only text, which it was fitted on"
        click.echo("note: nothing could be held out of a single text: the numbers flatter the lens", err=True)
    if texts.positions < FEWEST * gpt2.config.n_embd:
        rule = f"a lens of width {gpt2.config.n_embd} wants at least {FEWEST * gpt2.config.n_embd:,}"
        click.echo(f"note: {texts.positions:,} positions are few to fit on: {rule}", err=True)
    shown = texts.held_out or [texts.first]
    means: dict[str, list[Any]] = {"logit lens": [], "tuned lens": []}
    for one in shown:
        labels, *both = divergences(gpt2, one, tuned)
        for name, far in zip(means, both, strict=True):
            means[name].append(far[:, min(1, len(one) - 1) :].mean(axis=1))
    curves = {name: np.mean(some, axis=0) for name, some in means.items()}
    if as_json:
        counts = {"positions": texts.positions, "held_out_texts": len(texts.held_out)}
        numbers = {name: np.round(values, 6).tolist() for name, values in curves.items()}
        print(dumps({"lens": str(lens), "streams": labels} | counts | numbers))
    else:
        print(f"{lens}: nats between what each layer would say and the output, on {of}")
        for at, label in enumerate(labels):
            print(f"{label:>12}" + "".join(f"  {name} {values[at]:7.3f}" for name, values in curves.items()))
    draw(
        out,
        lambda plots: plots.lines(
            curves, title="From each layer to the output", x="stream", y="KL (nats)", x_labels=labels
        ),
    )


@experiment("steer", "Generate with a direction added to the residual stream.")
@click.argument("prompt")
@bos_option
@grouped("Direction", "--towards", multiple=True, required=True, help="A text to steer towards; repeatable.")
@grouped("Direction", "--away", multiple=True, required=True, help="A text to steer away from; repeatable.")
@grouped("Direction", "--layer", type=int, required=True, help="Add the direction before this layer.")
@grouped("Direction", "--scale", default=2.0, show_default=True, help="The factor that the direction is multiplied by.")
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
def steer(
    prompt: str,
    bos: bool,
    towards: tuple[str, ...],
    away: tuple[str, ...],
    layer: int,
    scale: float,
    max_new_tokens: int,
    do_sample: bool,
    seed: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Continue PROMPT without and with steering, which adds the difference between two kinds of text to the residual
    stream."""
    from ..internals.steering import steer as steered
    from ..internals.steering import steering_vector

    gpt2 = load_readable(model, dtype)
    vector = steering_vector(gpt2, towards, away, layer, prepend_bos=bos)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if do_sample:
        options |= {"do_sample": True, "seed": seed}
    ids = gpt2.to_ids(prompt, prepend_bos=bos)
    models = {"plain": gpt2, "steered": steered(gpt2, vector, layer, scale)}
    texts = {name: one.generate(ids, **options).text for name, one in models.items()}
    print(dumps(texts) if as_json else "\n".join(f"--- {name}\n{prompt}{text}" for name, text in texts.items()))
    effect = gpt2.params.lm_head @ (vector * gpt2.params.ln_f.weight)
    order = [*effect.argsort()[::-1][:12].tolist(), *effect.argsort()[:12].tolist()]
    words = gpt2.tokenizer.tokens(order)
    draw(out, lambda plots: plots.bars(effect[order], words, title="What the direction itself says", x="logit"))


@experiment("capture", "Write a corpus's activations to disk.")
@click.argument("corpus", type=CORPUS)
@click.argument("folder", type=CORPUS)
@capture_options("texts are")
@grouped(
    "Capture",
    "--chunk-mib",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="The size in MiB of a chunk, after which the run can be resumed.",
)
def capture(
    corpus: Path,
    folder: Path,
    names: tuple[str, ...],
    length: int | None,
    store: str,
    chunk_mib: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Capture activations of CORPUS into FOLDER, chunk by chunk; the same command continues after an interruption."""
    from ..internals.capture import capture_corpus

    if out is not None:
        raise ValueError("a capture draws no picture; --out is for the other experiments")
    gpt2 = load_readable(model, dtype)
    with bar(0, "token") as progress:
        captured = capture_corpus(
            gpt2,
            texts_of(gpt2, corpus, length),
            names,
            folder,
            chunk_bytes=chunk_mib << 20,
            dtype=store,
            progress=progress.update,
        )
    about = {"folder": str(folder), "texts": len(captured), "chunks": len(captured.chunks), "names": captured.names}
    print(dumps(about) if as_json else f"{folder}: {len(captured):,} texts in {len(captured.chunks)} chunks")
