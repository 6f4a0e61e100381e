"""Stochastic beam search: texts drawn without replacement, exactly, in one beam search.

Kool, van Hoof and Welling 2019, "Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling
Sequences Without Replacement", algorithm 1. Every text that could be written has a log-probability φ and a draw G
from Gumbel(φ); the k texts with the largest G are a sample without replacement. A prefix's G is the maximum over all
texts that begin with it, so the largest can be found from the root downwards without looking at the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import pipeline
from .errors import require
from .generate import deadline, finish_reason, room
from .interface import Completion, FinishReason, Stepper, Stopping, log_softmax
from .options import Options
from .sampling import seeded

Array = np.ndarray


@dataclass(frozen=True)
class Draw:
    """A prefix or a text: its log-probability under what is sampled from, and its perturbed one, the Gumbel G."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]  # the model's own, of each id
    log_probability: float
    gumbel: float
    finish_reason: FinishReason | None = None


def stochastic_beam_search(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    options: Options,
    *,
    context: int | None = None,
    stopping: Sequence[Stopping] = (),
    trace: list[tuple[Draw, ...]] | None = None,
) -> list[Completion]:
    """The first ``num_return_sequences`` of ``num_beams`` different texts of each prompt, in the order drawn.

    The order is that of drawing one text after the other from the distribution without those drawn before.
    ``score`` is a text's log-probability under the distribution sampled from: after processors and warpers.
    A list given as `trace` receives each prompt's whole sample (see `estimate`). ``ValueError`` when fewer than
    ``num_return_sequences`` texts are possible.
    """
    k, until, stream = options.num_beams, deadline(options), seeded(options)
    rooms = [room(prompt, options, context) for prompt in prompts]
    chains = [
        pipeline.build(options, number, len(prompt), len(prompt) + space)
        for number, (prompt, space) in enumerate(zip(prompts, rooms, strict=True))
    ]
    logits = stepper.feed(prompts)
    V = logits.shape[-1]
    options.check_vocabulary(V)
    # The root's G, the largest of all texts', is from Gumbel(0).
    roots = -np.log(stream.exponential(1, len(prompts), np.arange(len(prompts))).astype(np.float64))
    beams = [[Draw((), (), 0.0, float(root))] for root in roots]
    while True:
        growing = [(number, draw) for number, beam in enumerate(beams) for draw in beam if draw.finish_reason is None]
        if not growing:
            break
        own, late = log_softmax(logits.astype(np.float64)), time.monotonic() > until
        # Each prompt has k rows of draws of its own, so that it draws the same whatever the others have left to do.
        counts = [sum(draw.finish_reason is None for draw in beam) for beam in beams]
        slots = np.array([number * k + rank for number, count in enumerate(counts) for rank in range(count)])
        flat = slots[:, None] * V + np.arange(V)
        noise = -np.log(stream.exponential(k * len(prompts), V, flat.ravel()).astype(np.float64).reshape(-1, V))
        found: list[list[tuple[int, Draw]]] = [[(-1, draw) for draw in beam if draw.finish_reason] for beam in beams]
        scores = pipeline.side_by_side(
            chains, [(number, [*prompts[number], *draw.ids]) for number, draw in growing], logits
        )
        for place, (number, old) in enumerate(growing):
            prompt = prompts[number]
            phi = old.log_probability + log_softmax(scores[place].astype(np.float64))
            gumbels = conditioned(phi + noise[place], old.gumbel)
            for token in np.argsort(-gumbels, kind="stable")[:k].tolist():
                if phi[token] > -np.inf:
                    ids = (*old.ids, token)
                    reason = finish_reason(prompt, ids, late or len(ids) == rooms[number], options, stopping)
                    logprobs = (*old.logprobs, float(own[place, token]))
                    found[number].append((place, Draw(ids, logprobs, float(phi[token]), float(gumbels[token]), reason)))
        rows: list[int] = []
        for number, candidates in enumerate(found):
            candidates.sort(key=lambda candidate: -candidate[1].gumbel)
            beams[number] = [draw for _, draw in candidates[:k]]
            rows += [place for place, draw in candidates[:k] if draw.finish_reason is None]
        if rows:
            stepper.reorder(rows)
            logits = stepper.feed([draw.ids[-1:] for beam in beams for draw in beam if draw.finish_reason is None])
    n, out = options.num_return_sequences, []
    for beam in beams:
        require(n <= len(beam), f"num_return_sequences must be at most the number of texts there are ({len(beam)})", n)
        out += [
            Completion(list(one.ids), list(one.logprobs), one.finish_reason or "length", one.log_probability)
            for one in beam[:n]
        ]
        if trace is not None:
            trace.append(tuple(beam))
    return out


def conditioned(gumbels: Array, maximum: float) -> Array:
    """Independent Gumbels given that the largest of them is `maximum` (the paper's appendix on numerical stability)."""
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
