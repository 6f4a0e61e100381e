"""The checks themselves: tokenizer, activations, logits, perplexity, and tokens of every strategy.

torch in float64 is the arbiter; `ties` tells a token that differs by rounding from a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from decoders import textbook
from decoders.random.torch_rng import CPU, CUDA

from ..text import generation_config
from ..text.gpt2 import GPT2, on_torch
from ..text.scoring import losses
from . import official
from .checks import Check, numbers, rounding
from .ties import judge

if TYPE_CHECKING:
    from ..torch_reference import TorchReference

Array = np.ndarray
PROMPTS = ("Once upon a time", "The capital of France is", "In the morning the old man went down to the sea, and")
TEXT = (
    "The king had three sons, and the youngest was called Simpleton. One day the eldest went out into the forest to "
    "cut wood, and his mother gave him a fine sweet cake and a bottle of wine, so that he might not be hungry."
)


@dataclass(frozen=True)
class Case:
    """A strategy: its name and its options, transformers' names."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    tokens: int = 200


CASES = (
    Case("greedy"),
    Case("beam search, 4 beams", {"num_beams": 4}, 60),
    Case("beam search, 3 beams, length penalty 2", {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True}, 40),
    Case("sampling", {"do_sample": True}),
    Case("sampling, temperature 0.7, top-k 40", {"do_sample": True, "temperature": 0.7, "top_k": 40}),
    Case("sampling, top-p 0.9", {"do_sample": True, "top_p": 0.9}),
    Case("sampling, min-p 0.05, repetition penalty 1.2", {"do_sample": True, "min_p": 0.05, "repetition_penalty": 1.2}),
    Case(
        "sampling, typical 0.9, no repeated trigram", {"do_sample": True, "typical_p": 0.9, "no_repeat_ngram_size": 3}
    ),
    Case("beam sampling, 3 beams", {"do_sample": True, "num_beams": 3, "temperature": 0.9}, 40),
)


def run(
    name: str = "tales",
    *,
    device: str = "cpu",
    prompts: Sequence[str | Sequence[int]] = (),
    seed: int = 0,
    backend: str | None = None,
    text: str = TEXT,
) -> Iterator[Check]:
    """Every check on one model, as each is done.

    Prompts are texts, or ids for a model without a tokenizer, cut to half the context; where there are none, a model
    without a tokenizer gets ids all over its vocabulary. `text` is what the perplexity is of, cut to the context.
    """
    ours, exact = GPT2.from_pretrained(name, backend=backend), GPT2.from_pretrained(name, dtype="float64")
    theirs, truth = on_torch(name, device=device), on_torch(name, device=device, dtype="float64")
    yield from official.check(str(name), ours)
    if ours.has_tokenizer:
        yield tokenizer(ours, theirs, [prompt for prompt in [*(prompts or PROMPTS), text] if isinstance(prompt, str)])
    rows = [row[: max(1, ours.config.n_positions // 2)] for row in ids_of(ours, prompts)]
    compared = []
    for number, ids in enumerate(rows):
        for check in forward(f"prompt {number}", ours, theirs, truth, exact, np.array([ids])):
            compared.append(check)
            yield check
    yield rounding(compared, device)
    scored = ours.tokenizer.encode(text)[: ours.config.n_positions] if ours.has_tokenizer else rows[-1]
    if len(scored) > 1:
        yield perplexity(ours, theirs, truth, scored)
    for case in CASES:
        for number, ids in enumerate(rows):
            yield tokens(f"{case.name}, prompt {number}", ours, theirs, truth, ids, case, seed, device)
    yield ends(ours, theirs)
    for case in own(ours):
        for number, ids in enumerate(rows):
            yield tokens(f"{case.name}, prompt {number}", ours, theirs, truth, ids, case, seed, device)
    for number, ids in enumerate(rows):
        yield from notebook(f"prompt {number}", ours, theirs, truth, ids, seed, device)


def ids_of(model: GPT2, prompts: Sequence[str | Sequence[int]]) -> list[list[int]]:
    """The prompts as ids; where none are given `PROMPTS`, or ids all over the vocabulary without a tokenizer."""
    if prompts or model.has_tokenizer:
        return [model.prompt_ids(prompt) for prompt in prompts or PROMPTS]
    V, random = model.config.vocab_size, np.random.default_rng(0)
    return [random.integers(0, V, min(length, model.config.n_positions)).tolist() for length in (4, 9, 20)]


def reference(model: GPT2) -> TorchReference:
    """Return the reference behind a model that `on_torch` made."""
    return cast("TorchReference", model.implementation)


def tokenizer(ours: GPT2, theirs: GPT2, texts: Sequence[str]) -> Check:
    """Our ids against transformers' tokenizer of the same folder."""
    for text in texts:
        mine, their = ours.tokenizer.encode(text), reference(theirs).transformers_ids(text)
        if mine != their:
            return Check("tokenizer ids", "mismatch", where=repr(text[:40]), note=f"{mine} against {their}")
    return Check("tokenizer ids", "same", note=f"{sum(len(text) for text in texts)} characters")


def ends(ours: GPT2, theirs: GPT2) -> Check:
    """Which ids end a text, ours against transformers'."""
    mine, their = sorted(ours.eos_token_ids), sorted(reference(theirs).transformers_eos)
    return Check("end-of-text ids", "same" if mine == their else "mismatch", note=f"{mine} against {their}")


def own(model: GPT2) -> list[Case]:
    """Return the options in the model's own files: its end-of-text, and the settings of its generation_config.json."""
    eos = list(model.eos_token_ids)
    cases = [Case("greedy, to the end-of-text", {"eos_token_id": eos})] if eos else []
    if generation_config.settings(model.generation_config):
        cases.append(Case("generation_config.json", {"generation_config": True}))
    return cases


def forward(label: str, ours: GPT2, theirs: GPT2, truth: GPT2, exact: GPT2, ids: Array) -> Iterator[Check]:
    """Residual streams, attention patterns and logits of one prompt; the float64 path first, since it must be exact."""
    shown = ["blocks.*.resid_pre", "blocks.*.attn.pattern"]
    logits, their_acts = theirs.run_with_cache(ids, shown)
    true_logits, true_acts = truth.run_with_cache(ids, shown)
    gap = np.abs(exact.forward(ids) - true_logits)
    place = [int(index) for index in np.unravel_index(np.argmax(gap), gap.shape)]
    largest = float(gap.max())
    exactly = largest <= 1e-10 * max(1.0, float(np.abs(true_logits).max()))
    yield Check(f"{label}: float64 logits", "same" if exactly else "mismatch", largest, str(place))
    _, cache = ours.run_with_cache(ids, shown)
    for name in their_acts:
        yield numbers(f"{label}: {name}", cache[name], their_acts[name], true_acts[name])
    yield numbers(f"{label}: logits", ours.forward(ids), logits, true_logits)


def perplexity(ours: GPT2, theirs: GPT2, truth: GPT2, ids: Sequence[int]) -> Check:
    """The loss of every token of a text."""
    row = np.array([ids])
    each = [losses(model.forward(row)[0, :-1], row[0, 1:]) for model in (ours, theirs, truth)]
    check = numbers("perplexity: loss of every token", *each)
    values = ", ".join(f"{np.exp(one.mean()):.6f}" for one in each)
    return Check(**{**vars(check), "note": f"perplexity of ours, torch, float64: {values}; {len(ids)} tokens"})


def tokens(
    name: str, ours: GPT2, theirs: GPT2, truth: GPT2, ids: list[int], case: Case, seed: int, device: str
) -> Check:
    """The tokens of one strategy against transformers' own ``generate``."""
    most = min(case.tokens, ours.config.n_positions - len(ids))
    options = case.options | {"max_new_tokens": most}
    expected = reference(theirs).transformers_generate(ids, seed, **options)[0]
    eos: dict[str, Any] = {} if "generation_config" in options else {"eos_token_id": ()}
    chosen = eos | options
    settings = ours.generation_config if "generation_config" in options else {}
    if (settings | options).get("do_sample"):
        chosen |= {"seed": seed, "rng": device}
        if device == "cuda":
            chosen["cuda_multiprocessors"] = reference(theirs).multiprocessors

    def ours_on(model: GPT2) -> list[int]:
        found: list[int] = model.generate(ids, **chosen).ids
        return found

    return judge(name, ours, theirs, truth, ids, ours_on, expected)


def notebook(
    label: str, ours: GPT2, theirs: GPT2, truth: GPT2, ids: list[int], seed: int, device: str
) -> Iterator[Check]:
    """The notebook's algorithms, ours on the cache against torch's without one."""
    length = min(60, ours.config.n_positions - len(ids))

    def stream() -> Any:
        return CPU(seed) if device == "cpu" else CUDA(seed, reference(theirs).multiprocessors or 0)

    strategies: dict[str, tuple[Callable[[], textbook.Choice], dict[str, float]]] = {
        "greedy": (lambda: textbook.greedy, {}),
        "temperature": (lambda: textbook.temperature(0.7, stream()), {"temperature": 0.7}),
        "top-p": (lambda: textbook.top_p(0.9, 0.8, stream()), {"p": 0.9, "temperature": 0.8}),
    }
    for name, (choose, settings) in strategies.items():

        def decode(model: GPT2, choose: Callable[[], textbook.Choice] = choose) -> list[int]:
            return textbook.decode(model.start(), ids, length, choose(), None)

        expected = reference(theirs).notebook(name, ids, length, seed, **settings)
        yield judge(f"notebook's {name}, {label}", ours, theirs, truth, ids, decode, expected)
    length = min(20, length)
    expected = reference(theirs).notebook("beam search", ids, length, seed, num_beams=3)
    yield judge(
        f"notebook's beam search, {label}",
        ours,
        theirs,
        truth,
        ids,
        lambda model: textbook.beam_search(model.start(), ids, length, 3, None)[0],
        expected,
    )
