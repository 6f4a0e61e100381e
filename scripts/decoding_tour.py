"""Take a tour of decoding: run each strategy on the same model, in a terminal and, with --plots, in pictures.

    python scripts/decoding_tour.py [--model NAME] [--seed S] [--plots FOLDER]

The pictures need the `plots` extra (matplotlib).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from decoders import textbook
from decoders.base.interface import softmax
from gpt2_np import GPT2
from gpt2_np.model.params import flatten
from gpt2_np.notebook import (
    beam_search_decode,
    get_next_token_logits,
    greedy_decode,
    temperature_decode,
    top_k_decode,
    top_p_decode,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPERATURES, NUCLEI = (0.3, 0.7, 1.0, 1.5), (0.5, 0.8, 0.95, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tales", help="tales (bundled), gpt2, …, a hub id, or a folder")
    parser.add_argument("--length", type=int, default=50, help="new tokens of each text")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the three pictures into this folder")
    options = parser.parse_args()
    if options.length < 1:
        parser.error(f"--length must be at least 1, got {options.length}")
    try:
        model = GPT2.from_pretrained(options.model)
        _ = model.tokenizer  # a folder without one can't make the tour
        tour(model, options.model, options.length, options.seed)
        if options.plots is not None:
            draw(model, options.plots)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)


def tour(model: GPT2, name: str, length: int, seed: int) -> None:
    """Everything but the pictures, printed."""
    heading("The model")
    count = sum(array.size for _, array in flatten(model.params))
    print(f"  {name}: vocabulary {model.config.vocab_size:,}, {count:,} parameters, context {model.config.n_positions}")

    heading("What comes next")
    prompt = "The capital of France is"
    call(f'get_next_token_logits("{prompt}")')
    logits = get_next_token_logits(prompt, model=model)
    p = softmax(logits.astype(np.float64))
    print(f"  shape {logits.shape}, from {logits.min():.2f} to {logits.max():.2f}; the ten likeliest:\n")
    for rank, token in enumerate(np.argsort(-logits, kind="stable")[:10], 1):
        bar = "█" * round(60 * p[token])
        print(f"  {rank:>2}. {model.tokenizer.decode([token])!r:<14} {logits[token]:>7.2f}  {p[token]:>6.2%} {bar}")

    heading("Greedy: always the likeliest token")
    call('greedy_decode("Once upon a time")')
    first, second = (greedy_decode("Once upon a time", length, model=model) for _ in range(2))
    show("first time", first)
    show("second time", second)
    print(f"  The two are {'the same: nothing is left to chance' if first == second else 'DIFFERENT'}.")

    heading("Temperature: how bold the draw is")
    call('temperature_decode("The meaning of life is", temperature=…)')
    for value in TEMPERATURES:
        text = temperature_decode("The meaning of life is", length, value, seed=seed, model=model)
        show(f"temperature {value}", text)

    heading("Top-k: only the k likeliest")
    call('top_k_decode("The meaning of life is", k=…)')
    for k in (5, 50):
        show(f"k = {k}", top_k_decode("The meaning of life is", length, k, seed=seed, model=model))

    heading("Top-p: only the nucleus, at temperature 0.8")
    call('top_p_decode("The secret to happiness is", p=…, temperature=0.8)')
    for value in NUCLEI:
        show(f"p = {value}", top_p_decode("The secret to happiness is", length, value, 0.8, seed=seed, model=model))

    heading("Beam search: three texts at once, beside greedy")
    prompt = "The quick brown fox"
    call(f'beam_search_decode("{prompt}", num_beams=3)')
    for label, text in (
        ("greedy", greedy_decode(prompt, length, model=model)),
        ("3 beams", beam_search_decode(prompt, length, num_beams=3, model=model)),
    ):
        show(label, text)
        if text != prompt and len(model.tokenizer.encode(text)) <= model.config.n_positions:
            print(f"  {'':<16}  log-probability per new token: {per_token(model, prompt, text):.3f}")


def heading(text: str) -> None:
    print(f"\n── {text} " + "─" * max(3, 74 - len(text)) + "\n")


def call(text: str) -> None:
    """The call that a chapter shows."""
    print(f"  {text}\n")


def per_token(model: GPT2, prompt: str, text: str) -> float:
    """The mean log-probability (nats) of a text's tokens after its prompt."""
    return model.rank_choices(prompt, [text.removeprefix(prompt)])[0].per_token


def show(label: str, text: str) -> None:
    """One text, wrapped, behind its label."""
    width = min(100, shutil.get_terminal_size((100, 24)).columns) - 20
    lines = textwrap.wrap(" ".join(text.split()), width) or [""]
    print(f"  {label:<16}  {lines[0]}")
    for line in lines[1:]:
        print(f"  {'':<16}  {line}")


def draw(model: GPT2, folder: Path) -> None:
    """The three pictures: temperature, nucleus, beams."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise ValueError("--plots needs matplotlib: pip install 'gpt2-np[plots]'") from None
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("temperature", temperature_figure(model)),
        ("nucleus", nucleus_figure(model)),
        ("beams", beam_figure(model)),
    ):
        figure.savefig(folder / f"{name}.png", dpi=130)
        print(f"wrote {folder / name}.png")


def temperature_figure(model: GPT2) -> Figure:
    """The next-token distribution under each temperature: the same tokens in each panel, likeliest first."""
    import matplotlib.pyplot as plt

    logits = get_next_token_logits("The meaning of life is", model=model)
    best = np.argsort(-logits, kind="stable")[:12]
    figure, panels = plt.subplots(1, 4, figsize=(13, 4.2), sharex=True, sharey=True, layout="constrained")
    for panel, value in zip(panels, TEMPERATURES, strict=True):
        p = softmax(logits.astype(np.float64) / value)
        panel.barh(range(12), p[best], color="#4269d0")
        panel.set(title=f"temperature {value}", xlabel="probability")
        panel.text(
            0.97,
            0.03,
            f"the other {len(p) - 12:,}: {1 - p[best].sum():.0%}",
            transform=panel.transAxes,
            ha="right",
            va="bottom",
            color="#555",
        )
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(
        range(12), [repr(model.tokenizer.decode([token])) for token in best], parse_math=False
    )  # a token may hold dollar signs
    panels[0].invert_yaxis()
    figure.suptitle("“The meaning of life is …”: the same scores, sharpened and flattened")
    return figure


def nucleus_figure(model: GPT2) -> Figure:
    """Draw how many tokens each p keeps: cumulative probability against rank, at temperature 0.8."""
    import matplotlib.pyplot as plt

    logits = get_next_token_logits("The secret to happiness is", model=model)
    p = np.sort(softmax(logits.astype(np.float64) / 0.8))[::-1]
    mass = np.cumsum(p)
    figure, axes = plt.subplots(figsize=(9, 4.4), layout="constrained")
    axes.plot(np.arange(1, len(p) + 1), mass, color="#4269d0", linewidth=2)
    for value, color in zip(NUCLEI, ("#2c8a3d", "#b07d00", "#d9482f", "#a463f2"), strict=True):
        kept = min(int(np.searchsorted(mass, value)) + 1, len(p))
        axes.plot([1, kept], [value, value], color=color, linestyle="--", linewidth=1)
        axes.plot([kept, kept], [mass[kept - 1], 0], color=color, linestyle="--", linewidth=1)
        axes.plot(kept, mass[kept - 1], "o", color=color)
        below = value == 0.95  # too near to 0.99 for two lines of text between them
        axes.annotate(
            f"p = {value}: {kept:,} token{'s' * (kept > 1)}",
            (1, value),
            (6, -4 if below else 4),
            textcoords="offset points",
            va="top" if below else "bottom",
            color=color,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set(
        xscale="log",
        ylim=(0, 1.08),
        xlabel="tokens, likeliest first",
        ylabel="probability of all so far",
        title="“The secret to happiness is …”: the nucleus under each p (temperature 0.8)",
    )
    axes.set_xlim(1, len(p))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def beam_figure(model: GPT2, steps: int = 6, beams: int = 3) -> Figure:
    """The tree of beams: every hypothesis kept at each step, the winner's path drawn bold."""
    import matplotlib.pyplot as plt

    prompt = "The quick brown fox"
    ids = model.prompt_ids(prompt)
    winner, history = textbook.beam_search(model.start(), ids, steps, beams, None)
    figure, axes = plt.subplots(figsize=(13, 4.6), layout="constrained")
    place: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, (beams - 1) / 2)}
    for step, kept in enumerate(history, 1):
        for rank, (path, score) in enumerate(kept):
            here, parent = (float(step), float(rank)), place[tuple(path[:-1])]
            place[tuple(path)] = here
            chosen = winner[: len(path)] == path
            axes.plot(
                *zip(parent, here, strict=True),
                color="#ff725c" if chosen else "#bbb",
                zorder=1,
                linewidth=2.5 if chosen else 1.2,
            )
            axes.annotate(
                f"{model.tokenizer.decode(path[-1:])!r}\n{score:.2f}",
                here,
                ha="center",
                va="center",
                parse_math=False,
                bbox={
                    "boxstyle": "round",
                    "facecolor": "#ffe8e3" if chosen else "white",
                    "edgecolor": "#ff725c" if chosen else "#bbb",
                },
            )
    axes.annotate(
        prompt,
        place[()],
        ha="center",
        va="center",
        bbox={"boxstyle": "round", "facecolor": "#e6ecfb", "edgecolor": "#4269d0"},
    )
    axes.set(xlim=(-0.6, steps + 0.6), ylim=(beams - 0.5, -0.6), yticks=[], xlabel="step")
    axes.set_title("Three beams: each token with the sum of log-probabilities so far; the winner in red")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
