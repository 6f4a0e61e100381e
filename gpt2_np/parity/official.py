"""What the published weights are known to write: outputs that others have printed, with where they stand.

None was reproduced when this table was written, the weights being out of reach; `check` runs them wherever the weights
are. ``text`` is the whole text, prompt included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..text import GPT2
from .checks import Check


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
KNOWN = (
    Known("gpt2", [464, 3290], {"max_new_tokens": 18}, TESTS,
          ids=[464, 3290, 373, 1043, 287, 257, 2214, 1474, 262, 16246, 286, 2688, 290, 2688, 27262, 13, 198, 198, 464,
               3290]),
    Known("gpt2", "Hello, my dog is a little", {"max_new_tokens": 13}, TESTS,
          "Hello, my dog is a little bit of a mess. I'm not sure if he's going"),
    Known("gpt2", "Today, I", {"max_new_tokens": 13}, TESTS,
          "Today, I'm going to be doing a lot of research on this. I"),
    Known("gpt2", "Today is a nice day and",
          {"max_new_tokens": 14, "do_sample": True, "top_k": 50, "seed": 0, "rng": "cuda"}, TESTS + ", on CUDA",
          "Today is a nice day and if you don't know anything about the state of play during your holiday"),
    Known("gpt2", "Today is", {"max_new_tokens": 5}, DOCS + ", compute_transition_scores",
          "Today is the day when we can", logprobs=[-1.414, -2.609, -2.010, -1.859, -2.508]),
    Known("gpt2", "In a word, the cake is a", {"max_new_tokens": 5}, DOCS + ", NoBadWordsLogitsProcessor",
          "In a word, the cake is a bit of a mess."),
    Known("gpt2", "In a word, the cake is a", {"max_new_tokens": 5, "bad_words_ids": [[2085]]},
          DOCS + ", NoBadWordsLogitsProcessor", "In a word, the cake is a bit of a surprise."),
    Known("gpt2", "Alice and Bob are", {"max_new_tokens": 16}, DOCS,
          "Alice and Bob are both in the same room.\n\n\"I'm not sure if you're"),
    Known("gpt2", "An increasing sequence: one,", {"max_new_tokens": 20}, DOCS + ", TextStreamer",
          "An increasing sequence: one, two, three, four, five, six, seven, eight, nine, ten, eleven,"),
    Known("distilgpt2", "I'm not going to", {"max_new_tokens": 15}, DOCS,
          "I'm not going to be able to do that. I'm going to be able to do that"),
    Known("distilgpt2", "I'm not going to", {"max_new_tokens": 15, "repetition_penalty": 1.1}, DOCS,
          "I'm not going to be able to do that. I'll just have to go out and play"),
    Known("distilgpt2", "Today I", {"max_new_tokens": 16, "no_repeat_ngram_size": 2}, DOCS,
          "Today I'm not sure if I can get a better understanding of the nature of this issue"),
    Known("distilgpt2", "A sequence: 1, 2, 3", {"max_new_tokens": 10}, DOCS, "A sequence: 1, 2, 3, 4, 5, 6, 7, 8"),
    Known("gpt2", "<|endoftext|>", {"max_new_tokens": 10}, "CTranslate2 tests",
          "<|endoftext|>\nThe first time I saw the new version of"),
    Known("gpt2-medium", "Hello.", {"max_new_tokens": 10}, "tinygrad examples",
          "Hello. I'm a little late to the party, but"),
    Known("gpt2-medium", "What is the answer to life, the universe, and everything?", {"max_new_tokens": 10},
          "tinygrad examples",
          "What is the answer to life, the universe, and everything?\n\nThe answer is that we are all one"),
)  # fmt: skip


def check(name: str, model: GPT2) -> Iterator[Check]:
    """The known outputs of this model, where `name` is one that has some."""
    for number, known in enumerate(one for one in KNOWN if one.model == name):
        out = model.generate(known.prompt, **known.options)
        if known.ids is not None:
            start = list(known.prompt) if not isinstance(known.prompt, str) else []
            same = start + out.ids == known.ids
        else:
            same = f"{known.prompt}{out.text}" == known.text
        far = max((abs(a - b) for a, b in zip(out.logprobs, known.logprobs, strict=False)), default=0.0)
        verdict = "same" if same and far < 2e-3 else "mismatch"
        yield Check(f"known output {number}", verdict, far, note=f"{known.source}: {out.text!r}")  # type: ignore[arg-type]
