"""Pictures of experiments: one matplotlib figure each, to show or to `save`. Needs ``pip install 'gpt2-np[plots]'``.

No global state of matplotlib is touched: every function returns a Figure of its own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

try:
    from matplotlib import figure as drawing
    from matplotlib.axis import Axis
    from matplotlib.colors import LinearSegmentedColormap
except ModuleNotFoundError:
    raise ModuleNotFoundError("pictures need matplotlib: pip install 'gpt2-np[plots]'") from None

from ..system.files import write_whole
from . import labels
from .lens import Lens
from .neurons import Dashboard
from .patching import Patching

Array = np.ndarray
INK, WARM, COOL = "#333333", "#b2182b", "#2166ac"
# One language in all pictures and on the page: white is nothing, red is much of a share or above 0, blue below 0.
DIVERGING, SEQUENTIAL = "RdBu_r", LinearSegmentedColormap.from_list("share", ["#ffffff", WARM])
LIGHT = 0.75  # the share up to which black is read more easily on SEQUENTIAL than white


class Figure(drawing.Figure):
    """matplotlib's own, which a notebook shows without pyplot, and without a line of magic before."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=90, facecolor="white", bbox_inches="tight")
        return drawn.getvalue()


def save(figure: drawing.Figure, path: Path | str) -> None:
    """Write a picture whose kind follows from the name. ``ValueError`` for one that matplotlib doesn't know."""
    kind = Path(path).suffix.removeprefix(".")
    if not kind:
        raise ValueError(f"a picture needs a name that says its kind, like figure.png, got {str(path)!r}")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=150, facecolor="white", bbox_inches="tight")
    write_whole(Path(path), drawn.getvalue())


def heat(
    values: Array,
    *,
    title: str,
    x: str,
    y: str,
    x_labels: Sequence[str] | None = None,
    y_labels: Sequence[str] | None = None,
    bar: str = "",
    diverging: bool = True,
    numbers: bool = False,
) -> Figure:
    """A matrix (rows, columns) as coloured cells, white at 0 where `diverging`; `numbers` writes them in."""
    rows, columns = values.shape
    width, height = max(4.5, 0.42 * columns + 2), max(2.6, 0.36 * rows + 1.2)
    figure = Figure(figsize=(min(width, 14), min(height, 12)), layout="constrained")
    axes = figure.subplots()
    known = values[np.isfinite(values)]
    top = float(np.abs(known).max(initial=0)) or 1.0
    image = axes.imshow(
        values,
        cmap=DIVERGING if diverging else SEQUENTIAL,
        vmin=-top if diverging else 0,
        vmax=top,
        aspect="auto",
        interpolation="nearest",
    )
    axes.set(title=title, xlabel=x, ylabel=y)
    _ticks(axes.xaxis, columns, x_labels)
    _ticks(axes.yaxis, rows, y_labels)
    if x_labels is not None:
        axes.tick_params(axis="x", rotation=90)
    figure.colorbar(image, ax=axes, label=bar, shrink=0.9)
    if numbers:
        for row, column in np.ndindex(rows, columns):
            dark = abs(values[row, column]) > (0.6 if diverging else LIGHT) * top
            axes.text(
                column,
                row,
                f"{values[row, column]:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
    return figure


def _ticks(axis: Axis, count: int, labels: Sequence[str] | None) -> None:
    step = max(1, count // 24) if labels is None else 1
    axis.set_ticks(range(0, count, step), None if labels is None else [visible(label) for label in labels])
    axis.set_tick_params(labelsize=8, length=0)


def visible(token: str) -> str:
    """`labels.visible`, and no dollar sign begins mathematics."""
    return labels.visible(token).replace("$", r"\$")


def patching(result: Patching, tokens: Sequence[str] | None = None, *, title: str = "Activation patching") -> Figure:
    """A sweep over layer × position or layer × head: the share of the clean run's answer that each patch restores."""
    values = np.atleast_2d(result.restored)
    if values.ndim != 2:
        raise ValueError(f"a picture has two axes, got a sweep over {', '.join(result.axes)}")
    over = result.axes[-1]
    return heat(
        values,
        title=title,
        x=over,
        y="layer" if values.shape[0] > 1 else "",
        x_labels=tokens if over == "position" else None,
        bar="share restored",
    )


def head_scores(scores: Array, *, title: str, bar: str = "score") -> Figure:
    """One number a head, (L, H)."""
    return heat(
        scores,
        title=title,
        x="head",
        y="layer",
        bar=bar,
        numbers=scores.size <= 144,
        diverging=bool((scores < 0).any()),
    )


def all_head_scores(scores: Mapping[str, Array]) -> Figure:
    """Several kinds of head beside one another, each (L, H), from 0 to 1."""
    figure = Figure(figsize=(3.4 * len(scores) + 0.8, 3.4), layout="constrained")
    every = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, (kind, values) in zip(every, scores.items(), strict=True):
        image = axes.imshow(values, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
        axes.set(title=kind.replace("_", " "), xlabel="head")
        _ticks(axes.xaxis, values.shape[1], None)
        _ticks(axes.yaxis, values.shape[0], None)
    every[0].set_ylabel("layer")
    figure.colorbar(image, ax=list(every), label="attention where a perfect head looks", shrink=0.9)
    return figure


def attention(pattern: Array, tokens: Sequence[str], *, title: str) -> Figure:
    """One head's pattern (T, T): each row is a position, and what it looks at."""
    return heat(
        pattern,
        title=title,
        x="looked at",
        y="looking",
        x_labels=tokens,
        y_labels=tokens,
        bar="attention",
        diverging=False,
    )


def lens(
    looked: Lens, tokens: Sequence[str], decode: Callable[[Sequence[int]], str], *, title: str = "Logit lens"
) -> Figure:
    """Draw what each layer would predict next: the likeliest token in each cell, coloured by its probability."""
    best, p = looked.top(1)
    C, T = best.shape[:2]
    figure = Figure(figsize=(min(16, 0.85 * T + 2), 0.36 * C + 1.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(p[::-1, :, 0], cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(C, T):
        chance = p[C - 1 - row, column, 0]
        word = visible(decode([int(best[C - 1 - row, column, 0])]))
        axes.text(
            column,
            row,
            word if len(word) <= 9 else f"{word[:8]}…",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if chance > LIGHT else "black",
        )
    _ticks(axes.xaxis, T, list(tokens))
    _ticks(axes.yaxis, C, looked.labels[::-1])
    axes.tick_params(axis="x", rotation=90)
    axes.set(title=title, xlabel="after reading", ylabel="stream")
    figure.colorbar(image, ax=axes, label="probability", shrink=0.9)
    return figure


def bars(values: Sequence[float] | Array, labels: Sequence[str], *, title: str, x: str, top: int = 24) -> Figure:
    """Named numbers, the largest by size first: an attribution by head, for instance."""
    values = np.asarray(values)
    order = np.argsort(-np.abs(values), kind="stable")[:top][::-1]
    figure = Figure(figsize=(6, 0.24 * len(order) + 1.2), layout="constrained")
    axes = figure.subplots()
    colours = [WARM if values[number] >= 0 else COOL for number in order]
    axes.barh(range(len(order)), values[order], color=colours)
    axes.set_yticks(range(len(order)), [visible(labels[number]) for number in order], fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(title=title, xlabel=x)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def lines(series: Mapping[str, Array], *, title: str, x: str, y: str, x_labels: Sequence[str] | None = None) -> Figure:
    """Named curves over the same steps."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in series.items():
        axes.plot(values, marker="o", markersize=3, label=name)
    axes.set(title=title, xlabel=x, ylabel=y)
    if x_labels is not None:
        axes.set_xticks(range(len(x_labels)), x_labels, rotation=90, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False)
    return figure


def eigenvalues(values: Array, *, title: str) -> Figure:
    """A circuit's eigenvalues in the complex plane, to the right where it copies."""
    figure = Figure(figsize=(4.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#bbbbbb", linewidth=0.8)
    axes.axvline(0, color="#bbbbbb", linewidth=0.8)
    axes.scatter(values.real, values.imag, s=18, c=np.where(values.real >= 0, WARM, COOL))
    reach = 1.1 * float(np.abs(values).max(initial=1e-9))
    axes.set(title=title, xlabel="real", ylabel="imaginary", xlim=(-reach, reach), ylim=(-reach, reach))
    return figure


def dashboard(board: Dashboard, decode: Callable[[Sequence[int]], str]) -> Figure:
    """A neuron on one page: how often it fires how much, what it raises, and its strongest places in the corpus."""
    figure = Figure(figsize=(9, 1.8 + 0.3 * len(board.examples)), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[1.2, 0.28 * max(1, len(board.examples))])
    middle = (board.edges[1:] + board.edges[:-1]) / 2
    there = board.histogram > 0  # an empty bin has no bar
    upper.bar(middle[there], board.histogram[there], width=np.diff(board.edges)[there], color="#777777")
    upper.set(yscale="log", xlim=(board.edges[0], board.edges[-1]), ylim=(0.5, None), ylabel="positions")
    raised = "  ".join(visible(decode([token])) for token in board.raises[:8])
    upper.set_title(
        f"Layer {board.layer}, neuron {board.neuron}: active at {board.share_active:.1%}; raises  {raised}", fontsize=9
    )
    upper.tick_params(labelsize=7)
    upper.spines[["top", "right"]].set_visible(False)
    lower.set(xlim=(0, 1), ylim=(len(board.examples), -0.2))
    lower.axis("off")
    if not board.examples:
        lower.text(0.5, 0.3, "it fires nowhere in this corpus", fontsize=8, color=INK, ha="center")
    for row, example in enumerate(board.examples):
        strong = example.position - example.start
        before, after = decode(example.ids[:strong]), decode(example.ids[strong + 1 :])
        lower.text(0.03, row + 0.3, f"{example.value:.1f}", fontsize=8, color=INK, ha="right")
        lower.text(0.48, row + 0.3, visible(before)[-52:].replace("␣", " "), fontsize=8, color=INK, ha="right")
        word = visible(decode([example.ids[strong]])).replace("␣", " ").strip() or "␣"
        lower.text(0.55, row + 0.3, word[:12], fontsize=8, color=WARM, weight="bold", ha="center")
        lower.text(0.62, row + 0.3, visible(after)[:44].replace("␣", " "), fontsize=8, color=INK)
    return figure
