"""The trace of decoding as plain data: what `generate` appends to a list given as its ``trace``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from .base.interface import Completion
from .base.watching import TokenStep
from .searches.beam_common import Beam, Step
from .searches.stochastic_beam import Draw

Text = Callable[[Sequence[int]], str]
Record = dict[str, Any]  # an entry of a trace as JSON can hold it


def record(entry: Any, text: Text | None = None) -> Record:
    """Return one entry of a trace as JSON can hold it; with `text`, each list of ids also as text.

    Strategies that choose token by token give a `TokenStep` for each id; beam searches a `Step` for each prompt, group
    and step; best of n every sample; stochastic beams and exhaustive search a tuple for each prompt, of all they drew
    or found.
    """
    if isinstance(entry, TokenStep):
        out = asdict(entry)
        return (
            {name: value for name, value in out.items() if name != "changes"}
            | ({} if text is None else {"text": text([entry.id])})
            | {"changes": out["changes"]}
        )
    if isinstance(entry, Step):
        return {
            "prompt": entry.prompt,
            "group": entry.group,
            "length": len(entry.candidates[0].ids),
            "candidates": [one(beam, text) for beam in entry.candidates],
            "running": [one(beam, text) for beam in entry.running],
            "pool": [one(beam, text) for beam in entry.pool],
            "stopped": entry.stopped,
            "changes": [[asdict(change) for change in beam] for beam in entry.changes],
        }
    if isinstance(entry, tuple):
        return {"found": [one(item, text) for item in entry]}
    return one(entry, text)


def one(item: Beam | Draw | Completion, text: Text | None) -> Record:
    """One hypothesis, draw or completion."""
    out: Record = {"ids": list(item.ids)}
    if text is not None:
        out["text"] = text(out["ids"])
    if isinstance(item, Draw):
        out |= {"log_probability": item.log_probability, "gumbel": item.gumbel}
    elif item.score is not None:
        out["score"] = float(item.score)
    out["finish_reason"] = item.finish_reason
    return out
