"""Four decoders in textbook form, on any stepper: greedy, temperature, top-k and top-p sampling, and beam search.

They differ from `generate` where typical notebooks differ from transformers: top-p sorts downwards and keeps the first
token above p by a shift to the right; beams are compared by their plain sums, and the winner by its mean per token.
Only an end-of-text ends a text before `max_length` ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .base.errors import require
from .base.interface import Stepper, log_softmax, softmax
from .base.task import Stream
from .processors.top_k import TopK
from .random.draws import multinomial

Array = np.ndarray
Choice = Callable[[Array], int]


def decode(stepper: Stepper, prompt: Sequence[int], max_length: int, choose: Choice, eos: int | None) -> list[int]:
    """Return up to `max_length` new ids, each picked by `choose` from the (V,) logits; an end-of-text is kept."""
    require(max_length >= 1, "max_length must be at least 1", max_length)
    logits, new = stepper.feed([prompt])[0], list[int]()
    while True:
        new.append(choose(logits))
        if new[-1] == eos or len(new) == max_length:
            return new
        logits = stepper.feed([new[-1:]])[0]


def greedy(logits: Array) -> int:
    """Choose the likeliest token."""
    return int(logits.argmax())


def temperature(value: float, stream: Stream) -> Choice:
    """Draw from softmax(logits / temperature)."""
    require(value > 0, "temperature must be above 0", value)
    return lambda logits: draw(softmax(logits / np.float32(value)), stream)


def top_k(k: int, stream: Stream) -> Choice:
    """Draw from the k likeliest tokens."""
    warper = TopK(k)
    return lambda logits: draw(softmax(warper([], logits[None])[0]), stream)


def top_p(p: float, value: float, stream: Stream) -> Choice:
    """Draw from the nucleus: the likeliest tokens up to and including the first whose cumulative probability
    exceeds p.
    """
    require(0 < p <= 1, "p must be in (0, 1]", p)
    require(value > 0, "temperature must be above 0", value)

    def choose(logits: Array) -> int:
        scaled = logits / np.float32(value)
        order = np.argsort(-scaled, kind="stable")
        remove = np.cumsum(softmax(scaled[order])) > np.float32(p)
        remove[1:] = remove[:-1].copy()
        remove[0] = False
        scaled[order[remove]] = -np.inf
        return draw(softmax(scaled), stream)

    return choose


def draw(probabilities: Array, stream: Stream) -> int:
    """Compute ``torch.multinomial(probabilities, 1)`` from a stream of `torch_rng`."""
    return int(multinomial(stream, probabilities[None], 1, [0], 1)[0, 0])


def beam_search(
    stepper: Stepper, prompt: Sequence[int], max_length: int, num_beams: int, eos: int | None
) -> tuple[list[int], list[list[tuple[list[int], float]]]]:
    """Return the winner's new ids, and the beams after every step as (new ids, sum of log-probabilities).

    Each beam proposes its `num_beams` likeliest tokens, and the best `num_beams` of all go on. A beam that ends is
    completed. The winner is the completed or last beam with the highest sum divided by its number of ids.
    """
    require(max_length >= 1, "max_length must be at least 1", max_length)
    require(num_beams >= 1, "num_beams must be at least 1", num_beams)
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    completed_beams: list[tuple[list[int], float]] = []
    history = []
    logits = stepper.feed([prompt])
    for _ in range(max_length):
        candidates = []
        for row, (ids, score) in enumerate(beams):
            logprobs = log_softmax(logits[row].astype(np.float64))
            for token in np.argsort(-logprobs, kind="stable")[:num_beams].tolist():
                candidates.append((row, [*ids, token], score + float(logprobs[token])))
        candidates.sort(key=lambda candidate: -candidate[2])
        best = candidates[:num_beams]
        history.append([(ids, score) for _, ids, score in best])
        completed_beams += [(ids, score) for _, ids, score in best if ids[-1] == eos]
        growing = [(row, ids, score) for row, ids, score in best if ids[-1] != eos]
        beams = [(ids, score) for _, ids, score in growing]
        if not growing or len(beams[0][0]) == max_length:
            break
        stepper.reorder([row for row, _, _ in growing])
        logits = stepper.feed([ids[-1:] for ids, _ in beams])
    winner = max(completed_beams + beams, key=lambda beam: beam[1] / len(beam[0]))
    return winner[0], history
