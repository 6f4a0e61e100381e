"""The display of results: a readable line in a terminal, a table or coloured cells in a notebook.

Every text passes `escaped` on its way into HTML, since tokens, prompts and files may hold anything. Nothing here sets
the colour of text or of the page: cells are tinted with a transparent red or blue, so that a light and a dark theme
both stay readable. There is no script and no style sheet, so that what was shown is still shown where a notebook isn't
trusted.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
# Lighter than the red and blue of `internals.plots`, which lie on white: these must be seen on a dark page too.
WARM, COOL = "215, 62, 66", "60, 130, 214"
STRONGEST = 0.6  # the opacity of the strongest tint: black and white text both keep a contrast of 6 on it
MOST_ROWS, MOST_COLUMNS, MOST_TOKENS = 32, 40, 600  # what a notebook shows of a result; the result has all
PADDING = "padding:.1em .4em"
LINE = "1px solid rgba(128, 128, 128, .35)"
SIMPLE = (bool, int, type(None))


# ---- a line in a terminal --------------------------------------------------------------------------------------------


class Readable:
    """Gives a class a repr of one line: its name and its public attributes, as `described` writes them.

    >>> class Point(Readable):
    ...     def __init__(self):
    ...         self.x, self.weights = 1, np.zeros((2, 3), np.float32)
    >>> Point()
    Point(x=1, weights=float32 (2, 3))
    """

    def __repr__(self) -> str:
        return described(self)


def described(thing: Any, **more: object) -> str:
    """Return an object's class and public attributes in a line, arrays by dtype and shape; `more` stands after them.

    Of a dataclass those fields are left out that its own repr leaves out; of a named tuple all fields are shown.
    """
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing) if field.repr]
    else:
        names = list(getattr(thing, "_fields", None) or getattr(thing, "__dict__", {}))
    shown = {name: getattr(thing, name) for name in names if not name.startswith("_")} | more
    return f"{type(thing).__name__}({', '.join(f'{name}={brief(value)}' for name, value in shown.items())})"


def brief(value: Any, room: int = 60) -> str:
    """Return a value in few characters: an array by dtype and shape, a long collection by its size.

    >>> brief(np.zeros((2, 3))), brief([1, 2]), brief(list(range(100)))
    ('float64 (2, 3)', '[1, 2]', '100 items')
    """
    if isinstance(value, np.ndarray):
        few = value.size <= 3 and value.ndim <= 1
        return brief(value.tolist()) if few else f"{value.dtype} {value.shape}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, SIMPLE):
        return repr(value)
    if isinstance(value, (str, bytes, Path)):
        text = str(value) if isinstance(value, Path) else value
        return repr(text) if len(text) <= room else f"{text[:room]!r}…"
    if isinstance(value, Mapping):
        return f"{len(value)} entries" if value else "{}"
    if isinstance(value, (list, tuple, Set)) and not hasattr(value, "_fields"):
        simple = all(isinstance(one, (*SIMPLE, float, str)) for one in value) if len(value) <= room // 2 else False
        text = repr([round(one, 6) if isinstance(one, float) else one for one in value]) if simple else ""
        return text if simple and len(text) <= room else f"{len(value)} items"
    return str(getattr(value, "__qualname__", None) or type(value).__name__).replace("<locals>.", "")


def brief_repr(thing: object, room: int = 120) -> str:
    """Return an object's own repr, cut off if it is long, or its class if the repr would be an address in memory."""
    text = " ".join(repr(thing).split())
    if " at 0x" in text:
        return type(thing).__name__
    return text if len(text) <= room else f"{text[: room - 1]}…"


class Texts:
    """Gives ids as texts to whoever looks at a result, or their numbers without a tokenizer.

    A result that was pickled or copied has lost the tokenizer, which is no part of it.

    >>> Texts()([7, 8])
    ['7', '8']
    """

    def __init__(self, of: Callable[[list[int]], list[str]] | None = None) -> None:
        self.of = of

    def __call__(self, ids: Iterable[int]) -> list[str]:
        numbers = [int(one) for one in ids]
        return [str(one) for one in numbers] if self.of is None else self.of(numbers)

    def __reduce__(self) -> tuple[type[Texts], tuple[()]]:
        return Texts, ()

    def __repr__(self) -> str:
        return "Texts()" if self.of is None else "Texts(of a tokenizer)"


NUMBERS = Texts()


# ---- texts and numbers -----------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Return a text that can be seen and sent: control and direction marks and lone surrogates become "·"."""
    return "".join(one if one.isprintable() or one == "\n" else "⇥" if one == "\t" else "·" for one in text)


def visible(token: str) -> str:
    """Return a token with everything visible: blanks as ␣, line ends as ↵, tabs as ⇥, nothing at all as ∅."""
    return printable(token).replace("\n", "↵").replace(" ", "␣") or "∅"


def escaped(text: object) -> str:
    """Return a text as HTML holds it, in an element or in a quoted attribute, whatever it contains."""
    return html.escape(printable(str(text)), quote=True)


def number(value: float, top: float | None = None) -> str:
    """Return a number as a cell shows it: two places, or two digits if it is very small or large; "–" for NaN.

    Beside numbers of which `top` is the largest size, what is small is 0.

    >>> number(0.126), number(-0.0004), number(12345.0), number(float("nan")), number(-0.0004, 1.0)
    ('0.13', '-0.0004', '1.2e+04', '–', '0.00')
    """
    if np.isnan(value):
        return "–"
    size = abs(value) if top is None else top
    return f"{value:.2f}".replace("-0.00", "0.00") if size == 0 or 0.05 <= size < 1000 else f"{value:.2g}"


def in_bytes(count: float) -> str:
    """Return a size in memory as text: "512 bytes", "3.4 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def tint(share: float) -> str:
    """Return the CSS of a cell's background: red for a share from 0 to 1, blue below 0, none near 0 and for NaN."""
    opacity = min(abs(share), 1.0) * STRONGEST if np.isfinite(share) else 0.0
    return f"background-color:rgba({WARM if share > 0 else COOL}, {opacity:.2f})" if opacity >= 0.005 else ""


# ---- HTML ------------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A cell of a table: its text, its tint as a share of the strongest, and what hovering over it tells."""

    text: str
    share: float = 0.0
    hint: str = ""


def boxed(*parts: str, title: str = "", note: str = "") -> str:
    """Return one result as HTML: `parts` are HTML already, the title above and the note below them are text.

    A result that is too wide scrolls.
    """
    head = f'<div style="font-weight:600;margin-bottom:.3em">{escaped(title)}</div>' if title else ""
    foot = f'<div style="opacity:.75;font-size:.85em;margin-top:.3em">{escaped(note)}</div>' if note else ""
    return f'<div style="overflow-x:auto;max-width:100%">{head}{"".join(parts)}{foot}</div>'


def table(rows: Iterable[Sequence[object]], *, head: Sequence[object] = (), right: bool = False) -> str:
    """Return rows of cells as an HTML table: texts, or numbers and `Cell`s, which are aligned to the right.

    The first cell of each row is its heading. With `right` the columns' headings are aligned to the right, too.
    """
    made = []
    if head:
        sides = ["left"] + ["right" if right else "left"] * (len(head) - 1)
        cells = (
            f'<th scope="col" style="text-align:{side};{PADDING}">{_text(one)}</th>'
            for one, side in zip(head, sides, strict=True)
        )
        made.append(_row("".join(cells)))
    for first, *others in rows:
        heading = f'<th scope="row" style="text-align:left;{PADDING}">{_text(first)}</th>'
        made.append(_row(heading + "".join(map(_cell, others))))
    return f'<table style="border-collapse:collapse;font-size:.85em;margin:0">{"".join(made)}</table>'


def _row(cells: str) -> str:
    return f'<tr style="background:none">{cells}</tr>'  # a theme's stripes would mix with the tints


def _cell(value: object) -> str:
    if not isinstance(value, Cell):
        return f'<td style="text-align:{_side(value)};{PADDING}">{_text(value)}</td>'
    hint = f' title="{escaped(value.hint)}"' if value.hint else ""
    colour = tint(value.share)
    return f'<td style="text-align:right;{PADDING};{colour}"{hint}>{escaped(value.text)}</td>'


def _side(value: object) -> str:
    return "right" if isinstance(value, (int, float)) else "left"


def _text(value: object) -> str:
    if isinstance(value, float):
        return escaped(number(value))
    return escaped(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value)


def heat(
    values: Array,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    corner: str = "",
    title: str = "",
    legend: str = "",
    texts: Sequence[Sequence[str]] | None = None,
    hints: Sequence[Sequence[str]] | None = None,
    most: float | None = None,
) -> str:
    """Return a matrix, (rows, columns), as tinted cells: red above 0, blue below, strongest at `most` or the largest.

    `texts` are written into the cells in place of the numbers, and `hints` are what hovering tells in their place. Of a
    large matrix the first rows and columns are shown, and the note says of how many.
    """
    values = np.asarray(values, np.float64)
    some = values[:MOST_ROWS, :MOST_COLUMNS]
    finite = np.abs(values[np.isfinite(values)])
    top = (float(finite.max(initial=0)) or 1.0) if most is None else most

    def cell(row: int, column: int) -> Cell:
        value = float(some[row, column])
        hint = f"{rows[row]}, {visible(columns[column])}: {value:.4g}" if hints is None else hints[row][column]
        return Cell(number(value, top) if texts is None else texts[row][column], value / top, hint)

    body = ([rows[row], *(cell(row, column) for column in range(some.shape[1]))] for row in range(len(some)))
    head = [corner, *map(visible, columns[: some.shape[1]])]
    cut = [
        f"the first {shown} of {whole} {what}"
        for what, shown, whole in zip(("rows", "columns"), some.shape, values.shape, strict=True)
        if shown < whole
    ]
    note = f"Shown are {' and '.join(cut)}." if cut else ""
    return boxed(
        table(body, head=head, right=True), scale(legend, top, bool((values < 0).any())), title=title, note=note
    )


def scale(what: str, top: float, diverging: bool) -> str:
    """Return the legend of tinted cells, from −top or 0 to top, painted as the cells are."""
    low = f"rgba({COOL}, {STRONGEST}), transparent" if diverging else "transparent"
    bar = f"background:linear-gradient(to right, {low}, rgba({WARM}, {STRONGEST}))"
    ends = [escaped(number(end, top)) for end in (-top if diverging else 0.0, top)]
    style = f"display:inline-block;width:7em;height:.8em;vertical-align:middle;border:{LINE};{bar}"
    return (
        f'<div style="font-size:.85em;margin-top:.3em">{ends[0]} <span style="{style}"></span> {ends[1]} '
        f"{escaped(what)}</div>"
    )


def words(pieces: Sequence[str], shares: Sequence[float], hints: Sequence[str], *, before: str = "") -> str:
    """Return a text token by token as HTML, each tinted by its share; `before` is untinted text in front of it.

    Of a long text the first tokens are shown, and the number of the others.
    """
    made = [f'<span style="opacity:.65">{escaped(before)}</span>'] if before else []
    for piece, share, hint in list(zip(pieces, shares, hints, strict=True))[:MOST_TOKENS]:
        text = escaped(piece).replace("\n", "↵\n") or "·"
        made.append(f'<span title="{escaped(hint)}" style="border-left:{LINE};{tint(share)}">{text}</span>')
    if len(pieces) > MOST_TOKENS:
        made.append(f'<span style="opacity:.65"> … and {len(pieces) - MOST_TOKENS:,} more tokens</span>')
    return f'<div style="white-space:pre-wrap;line-height:1.7">{"".join(made)}</div>'


def arrays(values: Mapping[str, Array]) -> str:
    """Return named arrays as a table of names, shapes and sizes; arrays that differ only by layer share a row."""
    groups: dict[tuple[str, str], list[Array]] = {}
    for name, array in values.items():
        key = re.sub(r"^blocks\.\d+\.", "blocks.*.", name)
        groups.setdefault((key, f"{array.dtype} {array.shape}"), []).append(array)
    rows = [
        (name, len(some), described_as, in_bytes(sum(one.nbytes for one in some)))
        for (name, described_as), some in groups.items()
    ]
    return table(rows[: 2 * MOST_ROWS], head=["name", "arrays", "dtype and shape", "together"])


def framed(page: str, *, title: str, height: int = 640) -> str:
    """Return a whole page as an inline frame, which may run its own scripts and reach nothing else."""
    return (
        f'<iframe title="{escaped(title)}" sandbox="allow-scripts" srcdoc="{html.escape(page, quote=True)}" '
        f'style="width:100%;height:{height}px;border:{LINE}"></iframe>'
    )
