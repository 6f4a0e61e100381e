"""Published outputs of the official weights, each with its source.

None was reproduced when this table was written, the weights being out of reach; `check` runs them wherever the weights
are. ``text`` is the whole text, prompt included, and an end-of-text that was chosen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..text.gpt2 import GPT2
from ..weights import hub
from .checks import Check

END = 50256  # <|endoftext|>


@dataclass(frozen=True)
class Known:
    """One published output: of which model, from which prompt (text or ids), with which options, and its source."""

    model: str
    prompt: str | list[int]
    options: dict[str, Any]
    source: str
    text: str | None = None
    ids: list[int] | None = None
    logprobs: list[float] = field(default_factory=list)


TESTS = "transformers tests/models/gpt2"
DOCS = "transformers documentation"
COMPANY = (
    "DeepMind Technologies is a British artificial intelligence subsidiary of Alphabet Inc. and research "
    "laboratory founded in 2010. DeepMind was acquired by Google in 2014. The company is based"
)
KNOWN = (
    Known(
        "gpt2",
        [464, 3290],
        {"max_new_tokens": 18},
        TESTS,
        ids=[
            464,
            3290,
            373,
            1043,
            287,
            257,
            2214,
            1474,
            262,
            16246,
            286,
            2688,
            290,
            2688,
            27262,
            13,
            198,
            198,
            464,
            3290,
        ],
    ),
    Known(
        "gpt2",
        "Hello, my dog is a little",
        {"max_new_tokens": 13},
        TESTS,
        "Hello, my dog is a little bit of a mess. I'm not sure if he's going",
    ),
    Known(
        "gpt2", "Today, I", {"max_new_tokens": 13}, TESTS, "Today, I'm going to be doing a lot of research on this. I"
    ),
    Known(
        "gpt2",
        "Today is a nice day and",
        {"max_new_tokens": 14, "do_sample": True, "top_k": 50, "seed": 0, "rng": "cuda"},
        TESTS + ", on CUDA",
        "Today is a nice day and if you don't know anything about the state of play during your holiday",
    ),
    Known(
        "gpt2",
        "Today is",
        {"max_new_tokens": 5},
        DOCS + ", compute_transition_scores",
        "Today is the day when we can",
        logprobs=[-1.414, -2.609, -2.010, -1.859, -2.508],
    ),
    Known(
        "gpt2",
        "In a word, the cake is a",
        {"max_new_tokens": 5},
        DOCS + ", NoBadWordsLogitsProcessor",
        "In a word, the cake is a bit of a mess.",
    ),
    Known(
        "gpt2",
        "In a word, the cake is a",
        {"max_new_tokens": 5, "bad_words_ids": [[2085]]},
        DOCS + ", NoBadWordsLogitsProcessor",
        "In a word, the cake is a bit of a surprise.",
    ),
    Known(
        "gpt2",
        "Alice and Bob are",
        {"max_new_tokens": 16},
        DOCS,
        "Alice and Bob are both in the same room.\n\n\"I'm not sure if you're",
    ),
    Known(
        "gpt2",
        "An increasing sequence: one,",
        {"max_new_tokens": 20},
        DOCS + ", TextStreamer",
        "An increasing sequence: one, two, three, four, five, six, seven, eight, nine, ten, eleven,",
    ),
    Known(
        "gpt2",
        "Today, a dragon flew over Paris, France,",
        {"max_new_tokens": 10, "guidance_scale": 1.5},
        DOCS + ", UnbatchedClassifierFreeGuidanceLogitsProcessor",
        "Today, a dragon flew over Paris, France, killing at least 50 people and injuring more than 100",
    ),
    Known(
        "distilgpt2",
        "I'm not going to",
        {"max_new_tokens": 15},
        DOCS,
        "I'm not going to be able to do that. I'm going to be able to do that",
    ),
    Known(
        "distilgpt2",
        "I'm not going to",
        {"max_new_tokens": 15, "repetition_penalty": 1.1},
        DOCS,
        "I'm not going to be able to do that. I'll just have to go out and play",
    ),
    # Version 5 of the documentation prints "'": those texts would have 16 and 18 ids, where both were written to 20.
    Known(
        "distilgpt2",
        "Today I",
        {"max_new_tokens": 18},
        DOCS + ", NoRepeatNGramLogitsProcessor",
        "Today I\u2019m not sure if I\u2019m going to be able to do it.",
    ),
    Known(
        "distilgpt2",
        "Today I",
        {"max_new_tokens": 18, "no_repeat_ngram_size": 2},
        DOCS + ", NoRepeatNGramLogitsProcessor",
        "Today I\u2019m not sure if I can get a better understanding of the nature of this issue",
    ),
    Known(
        "distilgpt2",
        "A sequence: 1, 2, 3",
        {"max_new_tokens": 10},
        DOCS + ", ForcedEOSTokenLogitsProcessor",
        "A sequence: 1, 2, 3, 4, 5, 6, 7, 8",
    ),
    Known(
        "distilgpt2",
        "A sequence: 1, 2, 3",
        {"max_new_tokens": 10, "forced_eos_token_id": END},
        DOCS + ", ForcedEOSTokenLogitsProcessor",
        "A sequence: 1, 2, 3, 4, 5, 6, 7,<|endoftext|>",
    ),
    Known(
        "gpt2-large",
        COMPANY,
        {"max_new_tokens": 256 - 33, "penalty_alpha": 0.6, "top_k": 4},
        TESTS,
        COMPANY
        + (
            " in London, United Kingdom\n\nGoogle has a lot of data on its users and uses it to improve its products, such "
            "as Google Now, which helps users find the information they're looking for on the web. But the company is not "
            "the only one to collect data on its users. Facebook, for example, has its own facial recognition technology, "
            "as well as a database of millions of photos that it uses to personalize its News Feed.\n\nFacebook's use of "
            "data is a hot topic in the tech industry, with privacy advocates concerned about the company's ability to "
            "keep users' information private. In a blog post last year, Facebook CEO Mark Zuckerberg said his company "
            'would "do our best to be transparent about our data use and how we use it."\n\n"We have made it clear that '
            'we do not sell or share your data with third parties," Zuckerberg wrote. "If you have questions or '
            'concerns, please reach out to us at privacy@facebook.com."\n\nGoogle declined to comment on the privacy '
            "implications of its use of data, but said in a statement to The Associated Press that"
        ),
    ),
    Known(
        "gpt2",
        "<|endoftext|>",
        {"max_new_tokens": 10},
        "CTranslate2 tests",
        "<|endoftext|>\nThe first time I saw the new version of",
    ),
    Known(
        "gpt2-medium",
        "Hello.",
        {"max_new_tokens": 10},
        "tinygrad examples",
        "Hello. I'm a little late to the party, but",
    ),
    Known(
        "gpt2-medium",
        "What is the answer to life, the universe, and everything?",
        {"max_new_tokens": 10},
        "tinygrad examples",
        "What is the answer to life, the universe, and everything?\n\nThe answer is that we are all one",
    ),
)


@dataclass(frozen=True)
class KnownLogits:
    """The first logits at position 0, which follow from the first id alone."""

    model: str
    first_id: int
    logits: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class KnownAccuracy:
    """The least share of prompts in which the indirect object is likelier than the subject."""

    model: str
    least: float
    source: str


# The debug state's input is the start of tiny_shakespeare_val.bin, which its script begins with <|endoftext|>.
LOGITS = (KnownLogits("gpt2", END, (-43.431702, -39.836426, -43.065937), "llm.c, pull request 228, debug state"),)
ACCURACY = (KnownAccuracy("gpt2", 0.99, "TransformerLens, evals.ioi_eval over IOIDataset's default prompts, seed 42"),)
# IOIDataset's defaults; the indirect object [A] comes next.
TEMPLATES = (
    "[A] and [B] went to the [LOCATION] to buy [OBJECT]. [B] handed the [OBJECT] to",
    "Then, [B] and [A] went to the [LOCATION]. [B] gave the [OBJECT] to",
)
NAMES, LOCATIONS, OBJECTS = ("John", "Mary"), ("store", "market"), ("milk", "eggs", "bread")


def indirect_objects(count: int = 100, seed: int = 42) -> list[tuple[str, str, str]]:
    """(prompt, indirect object, subject), `count` times, as TransformerLens's ``IOIDataset`` draws them."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        template = draw.choice(TEMPLATES)
        template = template.replace("[LOCATION]", draw.choice(LOCATIONS)).replace("[OBJECT]", draw.choice(OBJECTS))
        indirect, subject = draw.sample(NAMES, 2)
        found.append((template.replace("[A]", indirect).replace("[B]", subject), " " + indirect, " " + subject))
    return found


def check(name: str, model: GPT2) -> Iterator[Check]:
    """All that is known of this model, where `name` is that of a published one: its short name or its hub id."""
    short = next((short for short, full in hub.OFFICIAL.items() if name in (short, full)), name)
    mine = [one for one in KNOWN if one.model == short]
    for number, known in enumerate(mine):
        yield output(number, known, model)
    yield from together(mine, model)
    yield from (first_logits(one, model) for one in LOGITS if one.model == short)
    yield from (accuracy(one, model) for one in ACCURACY if one.model == short)


def output(number: int, known: Known, model: GPT2) -> Check:
    """One known output."""
    out = model.generate(known.prompt, **known.options)
    if isinstance(known.prompt, str):
        written = known.prompt + model.tokenizer.decode(out.ids)
        same = written == known.text
    else:
        written = repr([*known.prompt, *out.ids])
        same = [*known.prompt, *out.ids] == known.ids
    far = max((abs(a - b) for a, b in zip(out.logprobs, known.logprobs, strict=False)), default=0.0)
    good = same and far < 2e-3
    return Check(f"known output {number}", "same" if good else "mismatch", far, note=f"{known.source}: {written!r}")


def together(known: list[Known], model: GPT2) -> Iterator[Check]:
    """Texts that are written greedily to the same length, in one batch."""
    greedy = [one for one in known if one.text is not None and set(one.options) == {"max_new_tokens"}]
    for length in dict.fromkeys(one.options["max_new_tokens"] for one in greedy):
        batch = [one for one in greedy if one.options["max_new_tokens"] == length]
        if len(batch) > 1:
            outs = model.generate([one.prompt for one in batch], max_new_tokens=length)
            written = [f"{one.prompt}{model.tokenizer.decode(out.ids)}" for one, out in zip(batch, outs, strict=True)]
            same = written == [one.text for one in batch]
            yield Check(
                f"known outputs in one batch, {length} tokens", "same" if same else "mismatch", note=f"{written!r}"
            )


def first_logits(known: KnownLogits, model: GPT2) -> Check:
    """The first logits after one id; printed from float32 sums of another order, so within 2e-3."""
    found = model.forward(np.array([[known.first_id]]))[0, 0, : len(known.logits)]
    far = float(np.abs(found - np.array(known.logits)).max())
    return Check("known logits", "same" if far < 2e-3 else "mismatch", far, note=f"{known.source}: {found.tolist()}")


def accuracy(known: KnownAccuracy, model: GPT2) -> Check:
    """The share of prompts after which the indirect object's logit is above the subject's, after an end-of-text."""
    prompts = indirect_objects()
    right: dict[tuple[str, str, str], bool] = {}
    for prompt, indirect, subject in dict.fromkeys(prompts):
        ids = [*model.config.eos_token_ids[:1], *model.tokenizer.encode(prompt, add_special_tokens=False)]
        logits = model.forward(np.array([ids]))[0, -1]
        good, bad = (model.tokenizer.encode(one, add_special_tokens=False)[0] for one in (indirect, subject))
        right[prompt, indirect, subject] = bool(logits[good] > logits[bad])
    share = sum(right[one] for one in prompts) / len(prompts)
    return Check(
        "known accuracy: indirect objects",
        "same" if share >= known.least else "mismatch",
        max(0.0, known.least - share),
        note=f"{known.source}: {share:.2f} of {len(prompts)}",
    )
