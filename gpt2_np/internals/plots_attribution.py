"""Pictures of attribution: bars over a prompt's tokens, a circuit as a graph, faithfulness over circuit size.

Like `plots`, of which this is the other half: one matplotlib figure each, no global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .attribution import Circuit, Curve, circuit_layout
from .plots import INK, Figure, visible

Array = np.ndarray
RAISES, LOWERS = "#b2182b", "#2166ac"


def tokens(scores: Mapping[str, Array], words: Sequence[str], *, title: str) -> Figure:
    """Draw the score of each token in reading order, with the methods beside one another; red raises, blue lowers.

    Every method has a scale of its own: its largest bar is as long as any other's.
    """
    figure = Figure(figsize=(1.6 + 2.1 * len(scores), 0.27 * len(words) + 1.3), layout="constrained")
    every = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (name, values) in zip(every, scores.items(), strict=True):
        axes.barh(range(len(words)), values, color=[RAISES if value >= 0 else LOWERS for value in values], height=0.7)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(axis="x", labelsize=7)
        axes.locator_params(axis="x", nbins=4)
        axes.spines[["top", "right", "left"]].set_visible(False)
    every[0].set_yticks(range(len(words)), [visible(word) for word in words], fontsize=8)
    every[0].invert_yaxis()
    figure.suptitle(title.replace("$", r"\$"), fontsize=10)
    return figure


def curves(found: Mapping[str, Curve], *, title: str) -> Figure:
    """Faithfulness over the share of edges that a circuit has, on a logarithmic scale, one curve for each method."""
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color="#999999", linewidth=0.8, linestyle="--")
    axes.axhline(0, color="#999999", linewidth=0.8)
    for name, curve in found.items():
        label = f"{name}: CPR {curve.cpr:.2f}, CMD {curve.cmd:.2f}"
        axes.plot(curve.shares, curve.faithfulness, marker="o", markersize=3, label=label)
    axes.set(xscale="log", title=title, xlabel="share of all edges", ylabel="faithfulness")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def circuit(found: Circuit, *, title: str) -> Figure:
    """A circuit from the input on the left to the logits on the right, at most `MOST_EDGES` of its largest edges.

    Layers follow each other from left to right, a layer's heads ("5.7" is head 7 of layer 5) stand above one another,
    MLPs in the lowest row. An edge into a head ends at its q, k or v. Red edges move the metric towards the clean run,
    blue ones away from it, the wider the more.
    """
    from matplotlib.patches import FancyArrowPatch

    ends = circuit_layout.strongest(found)
    at = circuit_layout.positions(ends)
    across, up = (max(one) for one in zip(*at.values(), strict=True))
    figure = Figure(figsize=(min(16.0, 0.85 * across + 2), min(9.0, 0.75 * up + 3)), layout="constrained")
    axes = figure.subplots()
    largest = max((abs(score) for *_, score in ends), default=1.0) or 1.0
    for sender, receiver, part, score in reversed(ends):
        (x, y), (to_x, to_y) = at[sender], at[receiver]
        arrow = FancyArrowPatch(
            (x + 0.28, y),
            (to_x - (0.5 if part else 0.36), to_y + circuit_layout.PORTS.get(part, 0.0)),
            connectionstyle=f"arc3,rad={circuit_layout.bend(x, y, to_x, to_y)}",
            arrowstyle="-|>",
            mutation_scale=7,
            linewidth=0.5 + 3.5 * abs(score) / largest,
            color=RAISES if score >= 0 else LOWERS,
            alpha=0.35 + 0.5 * abs(score) / largest,
            shrinkA=0,
            shrinkB=0,
        )
        axes.add_patch(arrow)
    for name, (x, y) in at.items():
        box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": INK, "linewidth": 0.8}
        axes.text(
            x, y, circuit_layout.label(name), ha="center", va="center", fontsize=7.5, color=INK, bbox=box, zorder=3
        )
        for part, shift in circuit_layout.PORTS.items():
            if any(receiver == name and into == part for _, receiver, into, _ in ends):
                axes.text(x - 0.41, y + shift, part, ha="center", va="center", fontsize=6.5, color=INK, zorder=4)
    longest = max((at[to][0] - at[name][0] for name, to, *_ in ends if at[name][1] == at[to][1] == 0), default=0.0)
    axes.set(xlim=(-0.7, across + 0.7), ylim=(-0.5 - 0.14 * longest, up + 0.8))
    axes.axis("off")
    shown = f"{len(ends)} of {len(found)} edges" if len(ends) < len(found) else f"{len(ends)} edges"
    axes.set_title(f"{title} ({shown})".replace("$", r"\$"), fontsize=10)
    return figure
