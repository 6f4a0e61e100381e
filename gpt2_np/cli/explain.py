"""``gpt2-np generate … --explain``: a readable table of what happened at each step of decoding."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.files import write_whole
from .plain import dumps

if TYPE_CHECKING:
    from decoders.trace import Record

    from ..text.gpt2 import GPT2

LEGEND = """
model: the token's probability by the model alone; chosen at: its share of what the processors left.
−n (p): n tokens removed, which had the probability p; ~p: p of the probability moved between tokens.
"""


def records(trace: Sequence[object], gpt2: GPT2) -> list[Record]:
    """A trace's entries as plain data, with their texts where there is a tokenizer."""
    from decoders.trace import record

    text = gpt2.tokenizer.decode if gpt2.has_tokenizer else None
    return [record(entry, text) for entry in trace]


def write_trace(path: Path, trace: Sequence[object], gpt2: GPT2) -> None:
    """A trace as JSON, one object a line."""
    lines = [dumps(entry) for entry in records(trace, gpt2)]
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def explained(trace: Sequence[object], gpt2: GPT2, width: int | None = None) -> str:
    """The trace as a table, `width` characters wide (the terminal's unless given)."""
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    entries = records(trace, gpt2)
    if not entries:
        return "nothing was recorded"
    if "logprob" in entries[0]:
        return tokens(entries, width)
    if "candidates" in entries[0]:
        return beams(entries, width)
    found = [one for entry in entries for one in entry.get("found", [entry])]
    return "\n".join(f"{one.get('score', one.get('log_probability')):>9.3f}  {shown(one)}" for one in found)


def tokens(entries: Sequence[Record], width: int) -> str:
    """A line for each token: what the model thought of it, what it was chosen from, who removed what."""
    from math import exp

    several = any(entry["row"] for entry in entries)
    head = "text  " if several else ""
    lines = [f"{head}step  {'token':<14} {'model':>7} {'chosen at':>9}  what the processors did"]
    for entry in entries:
        row = f"{entry['row'] + 1:>4}  " if several else ""
        start = f"{row}{entry['length']:>4}  {shown(entry):<14} {exp(entry['logprob']):>7.2%} "
        lines += wrapped(f"{start}{entry['probability']:>9.2%}  ", changes(entry["changes"]), width)
    return "\n".join([*lines, LEGEND.rstrip()])


def beams(entries: Sequence[Record], width: int) -> str:
    """A block for each step: the beams that go on, best first, and what has ended."""
    lines = []
    for entry in entries:
        names = [f"{name} {entry[name] + 1}" for name in ("prompt", "group") if any(one[name] for one in entries)]
        lines.append(
            " · ".join(
                [
                    f"step {entry['length']}",
                    *names,
                    f"{len(entry['candidates'])} candidates",
                    f"{len(entry['pool'])} ended",
                ]
            )
        )
        did = changes(entry["changes"][0]) if entry["changes"] else ""
        if did:
            lines += wrapped("    processors on the best beam: ", did, width)
        if entry["stopped"]:
            lines.append(f"    stopped: {entry['stopped']}")
        best = entry["pool"] if entry["stopped"] else [one for one in entry["running"] if one["score"] > -1e8]
        for one in best:
            lines += wrapped(f"  {one['score']:>9.3f}  ", shown(one), width)
    return "\n".join(lines)


def shown(entry: Record) -> str:
    """Its text in quotes, or its ids."""
    return repr(entry["text"]) if "text" in entry else str(entry.get("ids", entry.get("id")))


def changes(made: Sequence[Record]) -> str:
    """Describe what each processor that changed something did, and how many tokens were left."""
    parts = []
    for one in made:
        if one["removed"]:
            parts.append(f"{one['option']} −{one['removed']:,} ({one['mass']:.1%})")
        elif one["moved"] >= 5e-4:
            parts.append(f"{one['option']} ~{one['moved']:.1%}")
    return ", ".join(parts) + (f" → {made[-1]['left']:,} left" if parts else "")


def wrapped(start: str, text: str, width: int) -> list[str]:
    """`text` after `start`, further lines under it."""
    lines = textwrap.wrap(text, max(30, width - len(start))) or [""]
    return [start + lines[0], *(" " * len(start) + line for line in lines[1:])]
