"""The cost of reduced precision, relative to float32: KL divergence of the next token, agreement of top tokens,
perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..model.arrays import Array
from ..model.ops import log_softmax
from ..model.params import flatten
from ..session.model import Model
from ..text.gpt2 import GPT2
from ..text.scoring import Score, stride_of, windows

BLOCK = 128  # positions whose logits are held at once, of every model


@dataclass(frozen=True)
class Divergence:
    """The distance of a model's predictions from a reference's, over ``tokens`` tokens.

    Of each token KL(reference ‖ model), in nats (Kullback and Leibler 1951): ``mean`` with its standard error
    ``error``, the 99th percentile ``p99``, the ``largest``. ``same_top`` is the share of tokens before which both find
    the same token likeliest. ``perplexity`` is the model's own, ``mebibytes`` what its weights take. The reference has
    the distance 0 and the share 1.
    """

    dtype: str
    tokens: int
    perplexity: float
    mean: float
    error: float
    p99: float
    largest: float
    same_top: float
    mebibytes: float


def divergences(
    reference: GPT2,
    others: Mapping[str, Model],
    text: str,
    *,
    stride: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Divergence]:
    """The reference's row ("float32" or what it is), then one for each of the others, which have its vocabulary.

    Every token of the text is predicted once, as `GPT2.score` does it: the first one after ``<|endoftext|>``, in
    windows of the whole context, `stride` tokens apart (half the context unless given). Memory is that of the models,
    of one window's keys and values, and of `BLOCK` positions' logits, however long the text is. `progress` receives the
    number of tokens of each block. ``ValueError`` for an empty text, a stride that can't be, or another vocabulary.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.evaluation import divergences
        >>> reduced = {"bfloat16": GPT2.from_pretrained(dtype="bfloat16")}
        >>> exact, other = divergences(model, reduced, "The old man had three sons.")
        >>> other.dtype, other.mean < 0.001
        ('bfloat16', True)
    """
    context = min(model.config.n_positions for model in (reference, *others.values()))
    stride = stride_of(stride, context)
    for name, model in others.items():
        if model.config.vocab_size != reference.config.vocab_size:
            rule = f"{name} must have the reference's vocabulary ({reference.config.vocab_size} ids)"
            raise ValueError(f"{rule}, got {model.config.vocab_size}")
    tokens = reference.tokenizer.encode(text, add_special_tokens=False)
    if not tokens:
        raise ValueError("there is nothing to compare: the text is empty")
    ids = np.array([*reference.prompt_ids([]), *tokens])
    models: list[Model] = [reference, *others.values()]
    cost, same = [0.0] * len(models), [0] * len(models)
    far: list[list[Array]] = [[] for _ in models]
    for block, targets in blocks(models, ids, context, stride):
        first = log_softmax(block[0])
        likely = np.exp(first)
        for number, logits in enumerate(block):
            scores = first if number == 0 else log_softmax(logits)
            cost[number] -= float(scores[np.arange(len(targets)), targets].sum())
            far[number].append((likely * (first - scores)).sum(axis=-1))
            same[number] += int((logits.argmax(axis=-1) == block[0].argmax(axis=-1)).sum())
        if progress is not None:
            progress(len(targets))
    names = [dtype_of(reference), *others]
    return [
        row(name, model, Score(cost[number], len(tokens), 0).perplexity, np.concatenate(far[number]), same[number])
        for number, (name, model) in enumerate(zip(names, models, strict=True))
    ]


def blocks(models: list[Model], ids: Array, context: int, stride: int) -> Iterator[tuple[list[Array], Array]]:
    """Yield each model's logits, (positions, V), and the (positions,) ids that they predict, some positions at a
    time.
    """
    for start, end, known in windows(len(ids) - 1, context, stride):
        caches = [model.new_cache(1, end - start) for model in models]
        if known > start:
            for model, cache in zip(models, caches, strict=True):
                model.forward(ids[None, start:known], cache=cache, last_only=True)
        for place in range(known, end, BLOCK):
            fed, found = ids[None, place : min(place + BLOCK, end)], []
            for model, cache in zip(models, caches, strict=True):
                logits = model.forward(fed, cache=cache)
                model.check_logits(logits, fed, cache=cache)
                found.append(logits[0])
            yield found, ids[place + 1 : place + 1 + fed.shape[1]]


def row(name: str, model: Model, perplexity: float, far: Array, same: int) -> Divergence:
    """Return the figures of one model."""
    error = float(far.std(ddof=1)) / math.sqrt(len(far)) if len(far) > 1 else math.nan
    return Divergence(
        name,
        len(far),
        perplexity,
        float(far.mean()),
        error,
        float(np.percentile(far, 99)),
        float(far.max()),
        same / len(far),
        mebibytes(model),
    )


def dtype_of(model: Model) -> str:
    """Return the precision of a model's weights, as far as it is known."""
    return str(model.dtype) if model.origin is None else model.origin.dtype


def mebibytes(model: Model) -> float:
    """Return the size of a model's weights."""
    return sum(weight.nbytes for _, weight in flatten(model.params)) / (1 << 20)
