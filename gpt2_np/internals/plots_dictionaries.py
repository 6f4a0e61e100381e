"""Pictures of dictionaries: features over a prompt, a feature's dashboard, how often features fire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import plots
from .dictionaries import Dashboard, Firing
from .plots import Figure

Array = np.ndarray


def called(feature: int, names: Mapping[int, str]) -> str:
    """A feature's number, and what people called it."""
    return f"{feature} {names[feature]}" if feature in names else str(feature)


def features(found: Firing, tokens: Sequence[str], names: Mapping[int, str] | None = None, *, top: int = 20) -> Figure:
    """The features that fire most in a prompt, a row each, over its tokens."""
    numbers, _ = found.most(top)
    figure = plots.heat(
        found.features[:, numbers].T,
        title="Features over the prompt",
        x="token",
        y="feature",
        x_labels=tokens,
        bar="activation",
        diverging=bool((found.features < 0).any()),
    )
    # A name is a phrase, whose blanks need not be seen as a token's must.
    figure.axes[0].set_yticks(range(len(numbers)), [plain(called(int(one), names or {})) for one in numbers])
    return figure


def dashboard(
    board: Dashboard, decode: Callable[[Sequence[int]], str], names: Mapping[int, str] | None = None
) -> Figure:
    """A feature on one page: its histogram with a bar for 0, the words that it moves, its strongest places."""
    rows = max(1, len(board.examples))
    figure = Figure(figsize=(9, 2.4 + 0.3 * rows), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[1.4, 0.28 * rows])
    widths = np.diff(board.edges)
    step = float(widths[0]) or 1.0
    upper.bar([-step], [max(board.zeros, 0.8)], width=step, color="#bbbbbb")
    upper.bar((board.edges[1:] + board.edges[:-1]) / 2, np.maximum(board.histogram, 0.8), width=widths, color="#777777")
    upper.set_yscale("log")
    upper.set_ylabel("tokens", fontsize=8)
    upper.text(-step, max(board.zeros, 1), "0", fontsize=7, ha="center", va="bottom")
    says = {
        what: "  ".join(plots.visible(decode([one])) for one in getattr(board, what)[:7])
        for what in ("raises", "lowers")
    }
    title = f"Feature {called(board.feature, names or {})}: fires at {board.density:.2%} of {board.tokens:,} tokens"
    upper.set_title(title + "".join(f"\n{what}  {words}" for what, words in says.items() if words), fontsize=9)
    upper.tick_params(labelsize=7)
    upper.spines[["top", "right"]].set_visible(False)
    lower.set(xlim=(0, 1), ylim=(rows, -0.2))
    lower.axis("off")
    for row, example in enumerate(board.examples):
        strong = example.position - example.start
        before, after = decode(example.ids[:strong]), decode(example.ids[strong + 1 :])
        lower.text(0.03, row + 0.3, f"{example.value:.1f}", fontsize=8, color=plots.INK, ha="right")
        lower.text(0.48, row + 0.3, plain(before)[-52:], fontsize=8, color=plots.INK, ha="right")
        word = plain(decode([example.ids[strong]])).strip() or "␣"
        lower.text(0.55, row + 0.3, word[:12], fontsize=8, color="#b2182b", weight="bold", ha="center")
        lower.text(0.62, row + 0.3, plain(after)[:44], fontsize=8, color=plots.INK)
    return figure


def plain(text: str) -> str:
    """A text in one line, with its blanks as they are."""
    return plots.visible(text).replace("␣", " ")


def densities(density: Array) -> Figure:
    """Draw how often features fire, on a logarithmic scale; the title has the number of those that never do."""
    alive = density[density > 0]
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(np.log10(alive) if len(alive) else [], bins=40, color="#777777")
    dead = int((density == 0).sum())
    axes.set(
        title=f"How often features fire ({dead:,} of {len(density):,} never)", xlabel="log₁₀ of the share of tokens"
    )
    axes.set_ylabel("features")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
