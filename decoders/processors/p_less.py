"""P-less sampling: keeps tokens that are at least as likely as two draws are to agree. It has no parameter.

Tan, Wu and Howard 2025, "p-less Sampling: A Robust Hyperparameter-Free Approach for LLM Decoding" (arXiv 2509.23234).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ..base.given import excluded
from ..base.interface import softmax
from ..base.method import Cost, Documentation, Method, Option, Vectors
from ..base.value_types import FLAG
from .truncation import removed, spared

Array = np.ndarray


def p_less(ids: Sequence[Array], scores: Array, keep: int = 1) -> Array:
    """(rows, V) scores with −inf where p < Σ p², the probability that two draws agree; the `keep` best always stay.

    Section 3 of the paper. The threshold rises where the model is sure, and never passes the likeliest token.
    """
    p = softmax(scores)
    return below(scores, p, (p * p).sum(axis=-1, keepdims=True), keep)


def p_less_norm(ids: Sequence[Array], scores: Array, keep: int = 1) -> Array:
    """The same with the lower threshold (V · Σ p² − 1) / (V − 1), which is 0 where all are equally likely.

    From the probability that two draws agree, the probability that they don't is taken off, a V − 1-th of it.
    """
    p, V = softmax(scores), scores.shape[-1]
    agree = (p * p).sum(axis=-1, keepdims=True)
    return below(scores, p, agree - (1 - agree) / max(V - 1, 1), keep)


def below(scores: Array, p: Array, threshold: Array, keep: int) -> Array:
    """`scores` with −inf where p is below a threshold, but for the `keep` best."""
    # Among equals the sum may round to above each of them, and nothing would be left.
    threshold = np.minimum(threshold, p.max(axis=-1, keepdims=True))
    return removed(scores, spared(p < threshold, p, keep))


METHODS = (
    Method(
        "p_less",
        options=(
            Option(
                "p_less",
                FLAG,
                False,
                group="Sampling",
                help="p-less: keep only tokens at least as likely as two draws are to agree.",
            ),
        ),
        make=lambda place, **given: partial(p_less, keep=place.keep),
        only="sampling",
        keeps=True,
        documentation=(
            Documentation(
                "p_less",
                what="Tokens at least as likely as two draws are to agree are kept; there is nothing to tune.",
                formula=r"p_i \ge \sum_j p_j^2",
                source="Tan, Wu, Howard 2025",
                when=(
                    "When there is nothing to tune on: it stays strict at high temperatures. `p_less_norm` keeps "
                    "more tokens."
                ),
                example={"p_less": True},
                random=True,
            ),
        ),
        costs=(Cost({"p_less": True}),),
        vectors=(Vectors("p_less", lambda keep=1: partial(p_less, keep=keep), ([], [3])),),
    ),
    Method(
        "p_less_norm",
        options=(Option("p_less_norm", FLAG, False, group="Sampling", help="As --p-less, with a lower threshold."),),
        make=lambda place, **given: partial(p_less_norm, keep=place.keep),
        only="sampling",
        keeps=True,
        check=lambda options: excluded("p_less_norm", options, "p_less"),
        costs=(Cost({"p_less_norm": True}),),
        vectors=(Vectors("p_less_norm", lambda keep=1: partial(p_less_norm, keep=keep), ([], [3])),),
    ),
)
