"""Pictures of attribution graphs: the graph itself, and what it predicts beside what is measured.

Like `plots`: one matplotlib figure each, no global state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .dictionaries.graph import Graph
from .dictionaries.graph_effects import Silenced
from .plots import COOL, INK, WARM, visible

Array = np.ndarray
Node = tuple[str, int, int, int]
WIDTH = 1.25  # inches of a token's column
MARKS = {"token": ("s", "#bbbbbb"), "feature": ("o", "#f4c08a"), "error": ("D", "#dddddd"), "logit": ("s", "#8fbc8f")}


def graph(found: Graph, tokens: Sequence[str], *, title: str, edges: int = 120) -> Figure:
    """A graph, pruned before it is drawn: tokens below, layers upwards, the logit on top, a column for each position.

    The `edges` along which most of the logit leads back are drawn, and the nodes that they join: features with their
    numbers as circles, what the transcoders miss as diamonds. Red edges add, blue ones take away, the wider the more
    leads along them.
    """
    strongest = found.strongest(edges)
    nodes = dict.fromkeys(
        [*(found.targets[one] for one, *_ in strongest), *(found.sources[one] for _, one, *_ in strongest)]
    )
    nodes |= {found.targets[-1]: None}
    top = found.targets[-1][1]
    at = positions(list(nodes), top)
    figure = Figure(figsize=(min(20.0, WIDTH * len(tokens) + 1.2), min(14.0, 0.62 * top + 2.2)), layout="constrained")
    axes = figure.subplots()
    largest = max((flow for *_, flow in strongest), default=1.0)
    for target, source, weight, flow in reversed(strongest):
        (x, y), (to_x, to_y) = at[found.sources[source]], at[found.targets[target]]
        share = np.sqrt(flow / largest)
        colour = WARM if weight >= 0 else COOL
        axes.plot([x, to_x], [y, to_y], color=colour, linewidth=0.3 + 2.5 * share, alpha=0.2 + 0.6 * share, zorder=1)
    for kind, (mark, colour) in MARKS.items():
        some = [at[node] for node in nodes if node[0] == kind]
        if some:
            across, up = zip(*some, strict=True)
            size = 90 if kind == "logit" else 50
            axes.scatter(
                across, up, s=size, marker=mark, c=colour, edgecolors=INK, linewidths=0.6, zorder=2, label=kind
            )
    for node in nodes:
        if node[0] == "feature":
            axes.text(at[node][0], at[node][1] + 0.2, str(node[3]), fontsize=5.5, color=INK, ha="center", zorder=3)
    axes.set_xticks(range(len(tokens)), [visible(token) for token in tokens], rotation=45, ha="right", fontsize=8)
    axes.set_yticks([0, *range(1, top + 1), top + 1], ["token", *map(str, range(top)), "logit"], fontsize=8)
    axes.set(title=title.replace("$", r"\$"), ylabel="layer", xlim=(-0.6, len(tokens) - 0.4), ylim=(-0.6, top + 1.7))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, fontsize=7, loc="upper left", ncols=4)
    return figure


def positions(nodes: Sequence[Node], layers: int) -> dict[Node, tuple[float, float]]:
    """Return the place of each node: its position across, its layer upwards; nodes of one place stand side by side."""
    cells: dict[tuple[int, int], list[Node]] = {}
    for node in sorted(nodes, key=lambda one: (one[0] == "error", one[3])):
        cells.setdefault((node[1], node[2]), []).append(node)
    at = {}
    for (layer, position), some in cells.items():
        step = min(0.28, 0.84 / len(some))
        for number, node in enumerate(some):
            shift = (number - (len(some) - 1) / 2) * step
            at[node] = (position + shift, layer + 1 + (0.12 if number % 2 and len(some) > 3 else 0.0))
    return at


def silenced(found: Silenced, *, title: str) -> Figure:
    """Draw how the logit changes as each feature is silenced: predicted across, measured upwards, equal on the line."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    both = np.concatenate([found.predicted, found.measured])
    low, high = float(both.min(initial=0)), float(both.max(initial=0))
    room = 0.05 * (high - low) or 1.0
    ends = (low - room, high + room)
    axes.plot(ends, ends, color="#999999", linewidth=0.8, linestyle="--")
    axes.axhline(0, color="#dddddd", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#dddddd", linewidth=0.8, zorder=0)
    axes.scatter(found.predicted, found.measured, s=14, c=WARM, alpha=0.6, linewidths=0)
    axes.set(xlim=ends, ylim=ends, xlabel="predicted by the graph", ylabel="measured in the model")
    axes.set_title(
        f"{title}\n{len(found.which)} features, correlation {found.correlation:.3f}".replace("$", r"\$"), fontsize=10
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure
