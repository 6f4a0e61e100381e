"""The loss curve as a picture, if matplotlib is installed."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

from ..system.files import write_whole
from .checkpoint import rows


def draw(table: Path, picture: Path) -> bool:
    """Draw ``loss.csv``: the loss of each step and of the held-out text, in nats a token. Return False without
    matplotlib.
    """
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, lines = rows(table)
    found = [dict(zip(columns, line, strict=True)) for line in lines]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for column, label, color, marker in (
        ("loss_nats", "training", "#4269d0", ""),
        ("held_out_nats", "held out", "#ff725c", "."),
    ):
        points = [(int(row["step"]), float(row[column])) for row in found if row.get(column)]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, linewidth=1, label=label)
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    if axes.lines:
        axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png", metadata={"Software": None})
    write_whole(picture, content.getvalue())
    return True
