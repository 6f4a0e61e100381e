"""Beams under a ``choice``, each text once: tokens spell a text in several ways, and beams are searched among tokens.

Of the spellings that a search finds, the one with the best score stays. For each place that this leaves free, the
prompt is searched again with what is left of the choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import decoders
from decoders import Completion, Options
from decoders.base.errors import require

from .constraints import Automaton

Ids = Sequence[int]


def generate(
    start: Callable[[], Any], prompts: Sequence[Ids], options: Options, *, trace: list[Any] | None = None, **asked: Any
) -> list[Completion]:
    """Return what `decoders.generate` does, but several beams under a ``choice`` as different texts, best first.

    `start` makes a stepper. A text that ends with "length" isn't one of the choices and stays whatever it is.
    Stochastic beams stay as they were drawn: they are draws of spellings. `trace` receives the first search alone.
    ``ValueError`` for more texts than there are choices.
    """
    choices, wanted = options.constraint, options.num_return_sequences
    searched = options.num_beams > 1 and wanted > 1 and not options.stochastic_beams
    if not (searched and isinstance(choices, Automaton) and choices.kind == "choice"):
        return decoders.generate(start(), prompts, options, trace=trace, **asked)
    different = len(choices.texts)
    require(
        wanted <= different, f"num_return_sequences must be at most the number of texts in choice ({different})", wanted
    )
    written = decoders.generate(start(), prompts, options, trace=trace, **asked)
    found: list[Completion] = []
    for number, prompt in enumerate(prompts):

        def again(left: Automaton, prompt: Ids = prompt) -> Completion:
            once = replace(options, constraint=left, num_return_sequences=1)
            return decoders.generate(start(), [prompt], once, **asked)[0]

        found += each_once(written[number * wanted : (number + 1) * wanted], choices, options.eos_token_ids, again)
    return found


def each_once(
    found: Sequence[Completion], choices: Automaton, ends: Ids, again: Callable[[Automaton], Completion]
) -> list[Completion]:
    """Return as many completions with each choice once, best first; `again` searches among what is left of them."""
    kept: list[Completion] = []
    seen: set[bytes] = set()

    def add(one: Completion) -> None:
        text = choices.text([token for token in one.ids if token not in ends]) if one.finish_reason == "stop" else None
        if text is None or text not in seen:
            kept.append(one)
        if text is not None:
            seen.add(text)

    for one in found:
        add(one)
    while len(kept) < len(found):
        add(again(choices.without(seen)))
    return sorted(kept, key=lambda one: -(one.score or 0.0))
