"""The display of attributions in a notebook: coloured tables, coloured words, and a circuit as SVG.

The functions take any result that has the attributes they read, so that the results' own modules can use them. They are
the quick look; `plots` and `plots_attribution` draw for paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...display import COOL, LINE, WARM, Cell, arrays, boxed, escaped, heat, number, scale, table, visible, words
from . import circuit_layout, graph

STREAMS = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
)  # by layer and position: the first that is there
SHOWN = 12  # edges of a table
ACROSS, UP, MARGIN = 74, 44, 26  # pixels between columns and rows of a circuit's picture, and around it


def metric_of(found: Any) -> str:
    """Return the metric of the clean and of the corrupted runs as text, the mean over several pairs."""
    several = f", mean of {len(found.clean)} pairs" if len(found.clean) > 1 else ""
    return f"metric {np.mean(found.clean):.3g} clean, {np.mean(found.corrupted):.3g} corrupted{several}"


def node_table(found: Any) -> str:
    """Show `Nodes`: one point of the stream by layer and position, heads by layer, and the names of all scores."""
    parts: list[str] = []
    labels = None if found.ids is None else found.texts(found.ids)
    layers = sorted({int(name.split(".")[1]) for name in found.scores if name.startswith("blocks.")})
    rows = [f"layer {layer}" for layer in layers]
    for point in (*STREAMS, "attn.z"):
        names = [f"blocks.{layer}.{point}" for layer in layers]
        if not layers or any(name not in found.scores for name in names) or (parts and point != "attn.z"):
            continue
        values, corner, what = np.stack([found.scores[name] for name in names]), found.over or "position", point
        if point == "attn.z" and found.over != "position" and values.ndim == 3:  # (L, T, H), or heads before positions
            values, corner = values.sum(axis=1 if found.over is None else 2), "head"
            what = "attn.z, summed over positions"
        values = values.reshape(len(layers), -1)
        numbers = [str(at) for at in range(values.shape[1])]
        columns = labels if corner == "position" and labels else numbers if values.shape[1] > 1 else ["all"]
        parts.append(heat(values, rows=rows, columns=columns, corner=corner, legend=f"{what}: change of the metric"))
    title = f"Nodes by {found.method}: {metric_of(found)}"
    return boxed(*parts, *([] if parts else [arrays(found.scores)]), title=title, note=_others(found.scores))


def _others(scores: Any) -> str:
    points = dict.fromkeys(name.split(".", 2)[2] if name.startswith("blocks.") else name for name in scores)
    shown = ", ".join(list(points)[:12])
    return f"Scores are there of {len(points)} activations: {shown}{', …' if len(points) > 12 else ''}."


def edge_table(found: Any) -> str:
    """Show `Edges`: the largest of them."""
    total, best = int(graph.there(found.model.config).sum()), found.top(SHOWN)
    title = f"Edges by {found.method}: {metric_of(found)}"
    note = f"The {len(best)} largest of {total:,} edges; positive moves the metric towards the clean run."
    return boxed(_ranked(best), title=title, note=note)


def _ranked(best: list[tuple[str, str, float]]) -> str:
    top = max((abs(score) for *_, score in best), default=1.0) or 1.0
    rows = [(sender, f"→ {receiver}", Cell(number(score, top), score / top)) for sender, receiver, score in best]
    return table(rows, head=["sender", "receiver", "score"])


def curve_table(found: Any) -> str:
    """Show a `Curve`: faithfulness by size."""
    rows = [
        (f"{share:.1%}", int(count), Cell(number(float(value)), float(value)))
        for share, count, value in zip(found.shares, found.edges, found.faithfulness, strict=True)
    ]
    note = f"CPR {found.cpr:.3f} (area under the curve), CMD {found.cmd:.3f} (area between it and 1)"
    return boxed(
        table(rows, head=["of all edges", "edges left", "faithfulness"]), title="Faithfulness by size", note=note
    )


def input_words(found: Any) -> str:
    """Show `Inputs`: the prompt, each token tinted by its score."""
    scores = np.asarray(found.scores, np.float64)
    top = float(np.abs(scores[np.isfinite(scores)]).max(initial=0)) or 1.0
    pieces = found.texts(found.ids)
    hints = [
        f"{at} {visible(piece)}: {score:+.4g}" for at, (piece, score) in enumerate(zip(pieces, scores, strict=True))
    ]
    method = found.method.replace("_", " ")
    return boxed(
        words(pieces, (scores / top).tolist(), hints),
        scale(f"{method}, hover for numbers", top, bool((scores < 0).any())),
        title=f"What each token did: the metric is {found.value:.4g}",
    )


def circuit_picture(found: Any) -> str:
    """Draw a `Circuit`, at most `circuit_layout.MOST_EDGES` edges; those towards the clean run are red."""
    edges = circuit_layout.strongest(found)
    at = circuit_layout.positions(edges)
    across, up = (max(place[axis] for place in at.values()) for axis in (0, 1))
    lowest = [edge for edge in edges if at[edge.sender][1] == at[edge.receiver][1] == 0]
    below = 0.14 * max((at[edge.receiver][0] - at[edge.sender][0] for edge in lowest), default=0.0) * ACROSS
    width, height = across * ACROSS + 2 * MARGIN, up * UP + below + 2 * MARGIN
    top = max((abs(edge.score) for edge in edges), default=1.0) or 1.0

    def pixel(x: float, y: float) -> tuple[float, float]:
        return MARGIN + x * ACROSS, MARGIN + (up - y) * UP

    drawn = [_arrow(edge, at, pixel, abs(edge.score) / top) for edge in reversed(edges)]
    for name, place in at.items():
        x, y = pixel(*place)
        text = escaped(circuit_layout.label(name))
        half = 3.4 * len(text) + 4
        drawn.append(
            f'<rect x="{x - half:.0f}" y="{y - 9:.0f}" width="{2 * half:.0f}" height="18" rx="4" '
            f'fill="rgba(128,128,128,.18)" stroke="currentColor" stroke-opacity=".5"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" font-size="11" fill="currentColor">{text}</text>'
        )
    total, pairs = int(graph.there(found.model.config).sum()), len(found.pairs)
    shown = f"The {len(edges)} largest of them are drawn" if len(edges) < len(found) else "All of them are drawn"
    title = f"Circuit: {len(found)} of {total:,} edges, found by {pairs} pair{'s' * (pairs > 1)} of prompts"
    note = (
        f"{shown}; “5.7” is head 7 of layer 5; hover over an edge for its score. Red moves the metric towards the "
        "clean run, blue away from it."
    )
    picture = (
        f'<svg role="img" aria-label="{escaped(title)}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto;border:{LINE}">'
        f"{''.join(drawn)}</svg>"
    )
    return boxed(picture, title=title, note=note)


def _arrow(edge: circuit_layout.Edge, at: Any, pixel: Any, share: float) -> str:
    """Draw one edge as a curve with its head, the wider and the less transparent the larger its score is."""
    (x, y), (to_x, to_y) = at[edge.sender], at[edge.receiver]
    lift = circuit_layout.PORTS.get(edge.part, 0.0)
    rad = circuit_layout.bend(x, y, to_x, to_y)
    (x, y), (to_x, to_y) = pixel(x + 0.27, y), pixel(to_x - 0.36, to_y + lift)
    middle = (x + to_x) / 2 - rad * (to_y - y), (y + to_y) / 2 + rad * (to_x - x)
    ahead = np.array([to_x - middle[0], to_y - middle[1]])
    ahead = ahead / (float(np.hypot(*ahead)) or 1.0)
    end, side = np.array([to_x, to_y]), np.array([-ahead[1], ahead[0]])
    corners = [end, end - 7 * ahead + 3 * side, end - 7 * ahead - 3 * side]
    colour, opacity, line = WARM if edge.score >= 0 else COOL, 0.35 + 0.55 * share, 0.6 + 3.4 * share
    part = f" ({edge.part})" if edge.part else ""
    hint = f"{circuit_layout.label(edge.sender)} → {circuit_layout.label(edge.receiver)}{part}: {edge.score:+.3g}"
    points = " ".join(f"{one[0]:.1f},{one[1]:.1f}" for one in corners)
    return (
        f'<g stroke="rgb({colour})" fill="rgb({colour})" opacity="{opacity:.2f}"><title>{escaped(hint)}</title>'
        f'<path fill="none" stroke-width="{line:.1f}" d="M{x:.1f} {y:.1f}Q{middle[0]:.1f} {middle[1]:.1f} '
        f'{to_x:.1f} {to_y:.1f}"/><polygon stroke="none" points="{points}"/></g>'
    )
