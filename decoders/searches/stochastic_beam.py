"""Stochastic beam search: texts drawn without replacement, exactly, in one beam search.

Kool, van Hoof and Welling 2019, "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling
Sequences Without Replacement", algorithm 1. Every text that could be written has a log-probability φ and a draw G
from Gumbel(φ); the k texts with the largest G are a sample without replacement. A prefix's G is the maximum over all
texts that begin with it, so the largest can be found from the root downwards without looking at the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import require
from ..base.given import excluded
from ..base.interface import Array, Completion, FinishReason, log_softmax
from ..base.method import Documentation, Method, Option
from ..base.task import Task, TokenDetails
from ..base.value_types import FLAG
from ..processors import pipeline
from .beam_common import row_details, with_details


@dataclass(frozen=True)
class Draw:
    """A prefix or a text: its log-probability under the sampled distribution, and its perturbed one, the Gumbel G."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # the model's own, of each id
    log_probability: float
    gumbel: float
    finish_reason: FinishReason | None = None
    details: tuple[TokenDetails, ...] = ()  # those of each id, if the task asks for any


def stochastic_beam_search(task: Task, num_beams: int) -> list[Completion]:
    """The first ``task.copies`` of ``num_beams`` different texts of each prompt, in the order drawn.

    The order is that of drawing one text after the other from the distribution without those drawn before.
    ``score`` is a text's log-probability under the distribution sampled from: after processors and warpers.
    The task's trace receives each prompt's whole sample (see `estimate`). ``ValueError`` when fewer than
    ``task.copies`` texts are possible.
    """
    k, stream, prompts = num_beams, task.stream, task.prompts
    assert stream is not None  # it samples, and not from uniforms: its check sees to that
    chains = [prompt.chain(()) for prompt in prompts]
    logits = task.feed_prompts()
    V = logits.shape[-1]
    # The root's G, the largest of all texts', is from Gumbel(0).
    roots = -np.log(stream.exponential(1, len(prompts), np.arange(len(prompts))).astype(np.float64))
    beams = [[Draw((), (), 0.0, float(root))] for root in roots]
    while True:
        growing = [(number, draw) for number, beam in enumerate(beams) for draw in beam if draw.finish_reason is None]
        if not growing:
            break
        own, late = log_softmax(logits.astype(np.float64)), task.late()
        # Each prompt has k rows of draws of its own, so that it draws the same whatever the others have left to do.
        counts = [sum(draw.finish_reason is None for draw in beam) for beam in beams]
        slots = np.array([number * k + rank for number, count in enumerate(counts) for rank in range(count)])
        flat = slots[:, None] * V + np.arange(V)
        noise = -np.log(stream.exponential(k * len(prompts), V, flat.ravel()).astype(np.float64).reshape(-1, V))
        found: list[list[tuple[int, Draw]]] = [[(-1, draw) for draw in beam if draw.finish_reason] for beam in beams]
        texts = [(number, [*prompts[number].ids, *draw.ids]) for number, draw in growing]
        scores = pipeline.side_by_side(chains, texts, logits)
        told = row_details(task, own, scores, [None] * len(growing))
        for place, (number, old) in enumerate(growing):
            phi = old.log_probability + log_softmax(scores[place].astype(np.float64))
            gumbels = conditioned(phi + noise[place], old.gumbel)
            for token in np.argsort(-gumbels, kind="stable")[:k].tolist():
                if phi[token] > -np.inf:
                    ids = (*old.ids, token)
                    reason = task.finish_reason(prompts[number], ids, late)
                    logprobs = (*old.logprobs, float(own[place, token]))
                    both = float(phi[token]), float(gumbels[token])
                    found[number].append((place, Draw(ids, logprobs, *both, reason, (*old.details, *told[place]))))
        rows: list[int] = []
        for number, candidates in enumerate(found):
            candidates.sort(key=lambda candidate: -candidate[1].gumbel)
            beams[number] = [draw for _, draw in candidates[:k]]
            rows += [place for place, draw in candidates[:k] if draw.finish_reason is None]
        if rows:
            task.stepper.reorder(rows)
            logits = task.stepper.feed([draw.ids[-1:] for beam in beams for draw in beam if draw.finish_reason is None])
    n, out = task.copies, []
    for beam in beams:
        require(n <= len(beam), f"num_return_sequences must be at most the number of texts there are ({len(beam)})", n)
        out += [
            with_details(
                Completion(list(one.ids), list(one.logprobs), one.finish_reason or "length", one.log_probability),
                one.details,
            )
            for one in beam[:n]
        ]
        if task.trace is not None:
            task.trace.append(tuple(beam))
    return out


def conditioned(gumbels: Array, maximum: float) -> Array:
    """Draw independent Gumbels whose largest is `maximum` (the paper's appendix on numerical stability)."""
    largest = gumbels.max()
    with np.errstate(divide="ignore"):
        v = maximum - gumbels + np.log1p(-np.exp(gumbels - largest))
    out: Array = maximum - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))
    return out


def estimate(sample: Sequence[Draw], values: Sequence[float]) -> float:
    """The expectation of a function of texts, without bias, from its values on a sample: the paper's
    importance-weighted estimator.

    The last and smallest G is the threshold κ and has no value of its own: `values` are those of the others. Each is
    weighted by p / q, q being the probability that its G exceeds κ. A sample of every text there is has no threshold:
    then give all values.
    """
    if len(values) == len(sample):
        return float(sum(np.exp(draw.log_probability) * value for draw, value in zip(sample, values, strict=True)))
    require(len(values) == len(sample) - 1, f"values must be those of all but the last of {len(sample)} draws", values)
    threshold, total = sample[-1].gumbel, 0.0
    for draw, value in zip(sample, values, strict=False):
        inclusion = -np.expm1(-np.exp(draw.log_probability - threshold))
        total += float(np.exp(draw.log_probability) / inclusion * value)
    return total


def check(options: Any) -> None:
    """Check that it draws, in beams, and that no score depends on a text's length."""
    require(options.do_sample, "stochastic_beams needs do_sample", options.do_sample)
    if options.num_beams == 1:
        raise ValueError("stochastic_beams acts only in beam search; give num_beams above 1 too")
    excluded("stochastic_beams", options, "length_penalty", "early_stopping", "num_beam_groups")


METHODS = (
    Method(
        "stochastic beams",
        options=(
            Option(
                "stochastic_beams",
                FLAG,
                False,
                group="Beam search",
                help=(
                    "Stochastic beam search, with --do-sample: draw as many different texts as beams, without "
                    "replacement."
                ),
            ),
        ),
        run=stochastic_beam_search,
        unread=("stochastic_beams",),
        reads=("num_beams",),
        check=check,
        documentation=(
            Documentation(
                "stochastic beams",
                what="As many different texts as there are beams are drawn without replacement.",
                formula=r"G_{\phi} = \phi + \text{Gumbel}",
                source="Kool et al. 2019",
                when="For unbiased estimates from few distinct samples.",
                example={"num_beams": 4, "stochastic_beams": True},
                random=True,
            ),
        ),
        trials={"stochastic beams": {"num_beams": 4, "do_sample": True, "seed": 1, "stochastic_beams": True}},
    ),
)
