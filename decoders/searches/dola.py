"""DoLa: decoding by contrasting the last layer with an earlier one.

Chuang et al. 2024, "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models", as
transformers 4 does it (``GenerationMixin._dola_decoding``); version 5 has moved it out of its core. There the layer
is chosen for a whole batch at once; here each row chooses its own, so that a prompt gets what it gets alone. Under a
constraint, which transformers has none of, a token counts as plausible beside those that the constraint allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, cast

import numpy as np

from ..base.errors import require
from ..base.interface import Array, EarlyExitStepper, Stepper, Token, log_softmax, softmax
from ..base.method import Documentation, Method, Option
from ..base.readable import Readable
from ..base.task import Named, Task
from ..base.value_types import ValueType, is_ids
from ..processors import pipeline
from .token_by_token import token_by_token

RELATIVE_TOP = 0.1  # a token must be at least this many times as likely as the best, by the last layer


LAYERS = ValueType(
    "layers",
    'Literal["low", "high"] | Sequence[int]',
    "'low', 'high' or a list of layers",
    lambda value: value in ("low", "high") if isinstance(value, str) else is_ids(value) and len(value) > 0,
)


def dola(task: Task, dola_layers: Literal["low", "high"] | Sequence[int]) -> Iterator[Token]:
    """Token by token, from the contrast in place of the model's logits; log-probabilities are the model's own."""
    chains = [[one for one in prompt.chain(()) if one.option == "constraint"] for prompt in task.prompts]
    stepper = Dola(task.stepper, dola_layers, chains)
    return token_by_token(replace(task, stepper=stepper), own=lambda: stepper.own)


def candidate_layers(chosen: Literal["low", "high"] | Sequence[int], n_layer: int, tied: bool) -> list[int]:
    """Return the layers that "low" or "high" mean: every second one of the lower or upper half, of 20 at most.

    Where the matrices are tied the lowest are left out, since they mostly repeat the last id. ``ValueError`` when no
    layer is left, or one is named that the model hasn't got.
    """
    if chosen == "low":
        start = 0 if not tied or n_layer == 1 else 1 if n_layer == 2 else 2
        layers = [start] if start == n_layer // 2 else list(range(start, min(n_layer // 2, 20), 2))
        require(bool(layers), f"dola_layers 'low' means no layer of a tied model with {n_layer}; name some", chosen)
        return layers
    if chosen == "high":
        return list(range(n_layer // 2 if n_layer <= 40 else n_layer - 20, n_layer, 2))
    outside = [layer for layer in chosen if not 0 <= layer < n_layer]
    require(not outside, f"dola_layers must be between 0 and {n_layer - 1}", outside)
    return list(chosen)


class Dola(Readable):
    """A stepper whose logits are the contrast of another's; ``own`` are the model's, row for row.

    `chains` hold for each prompt the processor of a constraint, if there is one.
    """

    own: Array

    def __init__(
        self, stepper: Stepper, chosen: Literal["low", "high"] | Sequence[int], chains: Sequence[Sequence[Named]] = ()
    ) -> None:
        require(hasattr(stepper, "feed_layers"), "dola_layers needs a model that gives logits of its layers", stepper)
        self.stepper = cast(EarlyExitStepper, stepper)
        self.layers = candidate_layers(chosen, self.stepper.n_layer, self.stepper.tied)
        self.chains = chains
        self.texts: list[tuple[int, list[int]]] = []  # (the prompt's number, the ids so far) of each row

    def feed(self, ids: Sequence[Sequence[int]]) -> Array:
        """Continue each row; (rows, V) contrasted log-probabilities, −inf where the last layer thinks too little."""
        self.own, early = self.stepper.feed_layers(ids, self.layers)
        chosen = most_different(self.own, early)
        before = self.texts or [(number, []) for number in range(len(ids))]
        self.texts = [(number, [*text, *new]) for (number, text), new in zip(before, ids, strict=True)]
        allowed = pipeline.side_by_side(self.chains, self.texts, self.own)
        return contrast(self.own, early[chosen, np.arange(len(chosen))], allowed)

    def reorder(self, rows: Sequence[int]) -> None:
        """New row i continues old row ``rows[i]``."""
        self.stepper.reorder(rows)
        self.own = self.own[list(rows)]
        self.texts = [self.texts[row] for row in rows]


def most_different(final: Array, early: Array) -> Array:
    """For each row the layer that is furthest from the last by Jensen–Shannon divergence (section 2.2).

    (rows, V) and (layers, rows, V) logits → (rows,) places in `early`. Divergences are averaged over the vocabulary,
    which changes nothing in their order.
    """
    middle = 0.5 * (softmax(final) + softmax(early))
    log_middle = np.log(middle, where=middle > 0, out=np.zeros_like(middle))
    to_final = (middle * (log_middle - log_softmax(final))).mean(axis=-1)
    to_early = (middle * (log_middle - log_softmax(early))).mean(axis=-1)
    return (0.5 * (to_final + to_early)).argmax(axis=0)


def contrast(final: Array, early: Array, allowed: Array) -> Array:
    """log p(last layer) − log p(early layer), for the tokens that the last layer finds plausible (section 2.3).

    `allowed` are the last layer's logits, −inf for what may not be written.
    """
    final, early = log_softmax(final), log_softmax(early)
    plausible = np.where(allowed > -np.inf, final, -np.inf)
    threshold = plausible.max(axis=-1, keepdims=True) + final.dtype.type(np.log(RELATIVE_TOP))
    return np.where(plausible < threshold, final.dtype.type(-np.inf), final - early)


METHODS = (
    Method(
        "DoLa",
        options=(
            Option(
                "dola_layers",
                LAYERS,
                group="Contrast",
                help="DoLa: contrast the last layer's logits with those of earlier layers.",
            ),
        ),
        run=dola,
        streams=True,
        excludes=("num_beams", "exhaustive"),
        documentation=(
            Documentation(
                "DoLa",
                what="The last layer's log-probabilities minus those of an early layer decide.",
                formula=r"\log p_{last} - \log p_{early}",
                source="Chuang et al. 2024",
                when="For facts that emerge in late layers.",
                example={"dola_layers": "high"},
            ),
        ),
        trials={"DoLa": {"dola_layers": "high"}},
    ),
)
