"""Function vectors: a task that examples demonstrate, as one direction in the stream.

Todd et al. 2024, "Function Vectors in Large Language Models". Prompts that show a task by examples give each head's
mean output at the last position; put into prompts whose examples are shuffled, one head at a time, they show which
heads carry the task (the average indirect effect, equations 3 and 4); the sum of those heads' mean outputs is the
function vector, which is then added to the stream of prompts without examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..model.edits import Part
from ..model.forward import head_results
from ..model.ops import log_softmax
from ..session.model import Model
from .variants import run_variants

Array = np.ndarray
Ids = Sequence[int] | Array
QUESTION, BETWEEN = "Q: {x}\nA:", "\n\n"  # the paper's form: "Q: x\nA: y", two line ends between


class Shown(NamedTuple):
    """A prompt that demonstrates a task by examples and asks for one more, and its answer."""

    prompt: str
    answer: str


def shown(
    pairs: Sequence[tuple[str, str]],
    *,
    shots: int = 10,
    count: int = 100,
    shuffled: bool = False,
    seed: int = 0,
    question: str = QUESTION,
) -> list[Shown]:
    """`count` prompts of `shots` examples and one question, all drawn by `seed` from pairs of input and output.

    With `shuffled` the same examples stand there with their outputs exchanged among one another, the answer as it was.
    ``ValueError`` for fewer pairs than a prompt needs.
    """
    if shots < 0 or count < 1:
        raise ValueError(f"shots must be at least 0 and count at least 1, got {shots} and {count}")
    if len(pairs) < shots + 1:
        raise ValueError(f"{shots} examples and a question need {shots + 1} pairs, got {len(pairs)}")
    random, mixing, found = np.random.default_rng(seed), np.random.default_rng([seed, 1]), []
    for _ in range(count):
        chosen = [pairs[number] for number in random.choice(len(pairs), shots + 1, replace=False)]
        examples, (x, y) = chosen[:-1], chosen[-1]
        outputs = [output for _, output in examples]
        if shuffled:
            outputs = [outputs[number] for number in mixing.permutation(shots)]
        told = [
            f"{question.format(x=one)} {output}{BETWEEN}" for (one, _), output in zip(examples, outputs, strict=True)
        ]
        found.append(Shown("".join(told) + question.format(x=x), f" {y}"))
    return found


def mean_outputs(model: Model, prompts: Sequence[Ids]) -> Array:
    """Return each head's mean z at the last position of prompts of any lengths: (L, H, K) float64. Equation 2."""
    if not len(prompts):
        raise ValueError("a mean needs at least one prompt, got none")
    total = np.zeros((model.config.n_layer, model.config.n_head, model.config.head_width))
    for prompt in prompts:
        _, cache = model.run_with_cache(np.atleast_2d(prompt), "blocks.*.attn.z")
        total += cache.stack_activation("z")[:, 0, -1]
    return total / len(prompts)


def indirect_effects(
    model: Model,
    means: Array,
    prompts: Sequence[Ids],
    answers: Sequence[int],
    *,
    batch: int = 32,
    progress: Callable[[int], Any] | None = None,
) -> Array:
    """Measure how much each head's mean output raises the probability of the answers of (shuffled) prompts: (L, H).

    A head's z at the last position is replaced by its mean, one head at a time; the effect is averaged over prompts.
    """
    L, H = model.config.n_layer, model.config.n_head
    if len(prompts) != len(answers) or not len(prompts):
        raise ValueError(f"prompts and answers must be equally many, at least 1, got {len(prompts)} and {len(answers)}")
    total = np.zeros((L, H))
    for prompt, answer in zip(prompts, answers, strict=True):
        last = len(prompt) - 1

        def chance(logits: Array, answer: int = answer) -> Array:
            return np.exp(log_softmax(logits[:, -1]))[:, answer]

        variants: list[Any] = [{}]
        for layer, head in np.ndindex(L, H):
            variants.append({f"blocks.{layer}.attn.z": Part(_constant(means[layer]), [last], [head])})
        found = run_variants(model, prompt, variants, chance, batch=batch, progress=progress)
        total += found[1:].reshape(L, H) - found[0]
    return total / len(prompts)


def _constant(value: Array) -> Callable[[Array], Array]:
    return lambda x: np.broadcast_to(value.astype(x.dtype), x.shape)


def best_heads(effects: Array, count: int = 10) -> list[tuple[int, int]]:
    """Return the heads of the largest effects, (layer, head), the strongest first."""
    if not 1 <= count <= effects.size:
        raise ValueError(f"count must be between 1 and {effects.size}, got {count}")
    order = np.argsort(-effects, axis=None, kind="stable")[:count]
    layers, heads = np.unravel_index(order, effects.shape)
    return list(zip(layers.tolist(), heads.tolist(), strict=True))


def function_vector(model: Model, means: Array, heads: Sequence[tuple[int, int]]) -> Array:
    """Return the sum of what the heads' mean outputs write to the stream, without biases: (D,). Equation 5.

    Added to the stream of a prompt's last position before a layer by `steering.steer` or `steering.addition`.
    """
    vector = np.zeros(model.config.n_embd)
    for layer, head in heads:
        written = head_results(means[layer][None, None], model.params.h[layer].attn.c_proj)
        vector += written[0, 0, head]
    return vector.astype(model.dtype)
