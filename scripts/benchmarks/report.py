"""The report of the figures: a table for the README, a page with all of them, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .measure import Row

Curves = dict[str, dict[str, list[tuple[int, float]]]]
PANELS = (
    ("position", "position in the context", "ms a token"),
    ("rows", "texts decoded at once", "ms a step"),
    ("prompt", "tokens of the prompt", "ms a prompt"),
)


def figure(value: float, unit: str) -> str:
    """A number with as many digits as it deserves, and its unit."""
    number = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{number} {unit}".rstrip()


def line(row: Row) -> str:
    """A row in Markdown: ours, the others with our ratio to each, memory read, share of the bound."""
    beside = "<br>".join(
        f"{name}: {figure(value, row.unit)} (**{row.ratio(name):.2f} ×**)" for name, value in row.others.items()
    )
    read = "" if row.gbs is None else f"{row.gbs:.1f} GB/s"
    share = "" if row.share is None else f"{row.share:.0%}"
    return f"| {row.work} | {figure(row.value, row.unit)} | {beside} | {read} | {share} | {row.note} |"


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    head = ["| work | gpt2_np | beside | memory read | share of the bound | |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *map(line, rows)])


# The rows that the README shows, of the first shape.
SHOWN = (
    "greedy decoding, float32",
    "greedy decoding, int8",
    "a prompt of 512 tokens, float32",
    "a prompt of 512 tokens, int8",
    "64 prompts of 32 at once, 16 tokens each, int8",
    "process start to first token",
)


def short(rows: Sequence[Row]) -> str:
    """The README's few rows as a Markdown table: ours, and the others with our ratio to each."""
    shown = [row for row in rows if row.work.partition(": ")[2] in SHOWN and row.work.startswith("gpt2:")]
    return "\n".join(["| work | gpt2_np | beside |", "|---|---|---|", *(cells(row) for row in shown)])


def cells(row: Row) -> str:
    """The first three columns of a row."""
    return "|".join(line(row).split("|")[:4]) + "|"


def write_between(path: Path, mark: str, text: str) -> None:
    """Put `text` between ``<!-- mark -->`` and ``<!-- end of mark -->`` in a file, in place of what was there."""
    before, found, rest = path.read_text(encoding="utf-8").partition(f"<!-- {mark} -->")
    _, ended, after = rest.partition(f"<!-- end of {mark} -->")
    if not (found and ended):
        raise ValueError(f"{path} must hold <!-- {mark} --> and <!-- end of {mark} -->")
    path.write_text(f"{before}{found}\n{text}\n{ended}{after}", encoding="utf-8")


def growth(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Return GB read and ms for each token from the rows of decoding token by token, by dtype, the smallest first."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        _, found, dtype = row.work.partition(": token by token, ")
        if found and row.gbs is not None:
            points.setdefault(dtype, []).append((row.gbs / row.value, 1000 / row.value))
    return {dtype: sorted(some) for dtype, some in points.items() if len(some) > 1}


def plot(curves: Curves, rows: Sequence[Row], path: Path) -> None:
    """Cost against position, texts at once and the prompt's length, and against the size of the weights."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = growth(rows)
    count, width = (len(PANELS) + 1, 15) if sizes else (len(PANELS), 12)
    figure_, panels = plt.subplots(1, count, figsize=(width, 3.4), layout="constrained")
    for panel, (axis, label, unit) in zip(panels, PANELS, strict=False):
        for size, kinds in curves.items():
            panel.plot(*zip(*kinds[axis], strict=True), marker="o", markersize=4, label=size)
        highest = max(ms for kinds in curves.values() for _, ms in kinds[axis])
        panel.set(xlabel=label, ylabel=unit, ylim=(0, 1.1 * highest))
    if sizes:
        for dtype, points in sizes.items():
            panels[-1].plot(*zip(*points, strict=True), marker="o", markersize=4, label=dtype)
        panels[-1].set(xlabel="GB read a token", ylabel="ms a token", xlim=(0, None), ylim=(0, None))
        panels[-1].legend(frameon=False, loc="upper left")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    panels[0].legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure_.savefig(path, dpi=110)
    plt.close(figure_)
