"""The answers of one model: the logits of a text, and texts that it generates greedily and with a seed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from determinism.compare import Difference, difference, worst
from gpt2_np import GPT2

Array = np.ndarray
Answers = dict[str, Array]
# (weights, backend): float64 with the kernels' backend has its products from BLAS.
KINDS = (
    ("float32", "numba"),
    ("bfloat16", "numba"),
    ("int8", "numba"),
    ("int4", "numba"),
    ("float64", "numba"),
    ("float32", "numpy"),
)
TEXT = (
    "Once upon a time there was a king who had three sons. The eldest was strong, the second was clever, and the "
    "youngest was good. One day the king fell ill, and no doctor in the land knew what to do. Then an old woman came "
    "to the castle and said that far away, behind the mountains, there was a well whose water made the sick well again."
)
PROMPTS = ("Once upon a time", "The king said to his daughter:")
POSITIONS, LENGTH = 64, 24
DRAWN = {"do_sample": True, "temperature": 0.9, "seed": 11}


def load(kind: tuple[str, str]) -> GPT2:
    """The bundled model with these weights and this backend."""
    dtype, backend = kind
    return GPT2.from_pretrained(dtype=dtype, backend=backend)


def ids(model: GPT2) -> Array:
    """The text's first ids."""
    return np.array(model.tokenizer.encode(TEXT)[:POSITIONS])


def logits(model: GPT2) -> Answers:
    """The logits of the text alone."""
    return {"logits": model(ids(model))}


def answers(model: GPT2, length: int = LENGTH) -> Answers:
    """Everything that is compared: the logits, and each prompt's texts with their log-probabilities."""
    out = logits(model)
    for number, prompt in enumerate(PROMPTS):
        for how, options in (("best", {}), ("drawn", DRAWN)):
            written = model.generate(prompt, max_new_tokens=length, **options)  # type: ignore[call-overload]
            out[f"text {how} {number}"] = np.array(written.ids)
            out[f"logprobs {how} {number}"] = np.array(written.logprobs)
    return out


# ---- what varies within one process ----------------------------------------------------------------------------------


def again(model: GPT2, length: int) -> Difference:
    """The same calls a second time."""
    return difference(answers(model, length), answers(model, length))


def in_batches(model: GPT2, length: int) -> Difference:
    """The text as one row of 2, 7 and 40, beside others; the prompts of unequal lengths written together."""
    own, found = logits(model), []
    random = np.random.default_rng(0)
    for rows in (2, 7, 40):
        batch = random.integers(0, model.config.vocab_size, (rows, POSITIONS))
        batch[rows // 2] = ids(model)
        found.append(difference(own, {"logits": model(batch)[rows // 2]}))
    together = model.generate(list(PROMPTS), max_new_tokens=length)
    alone = [model.generate(prompt, max_new_tokens=length) for prompt in PROMPTS]
    for one, other in zip(together, alone, strict=True):
        found.append(
            difference(
                {"text": np.array(one.ids), "logprobs": np.array(one.logprobs)},
                {"text": np.array(other.ids), "logprobs": np.array(other.logprobs)},
            )
        )
    return worst(found)


def in_pieces(model: GPT2, length: int) -> Difference:
    """The text read at once, in pieces of 16 and of 7, and id by id."""
    own, text, found = logits(model), ids(model), []
    for size in (16, 7, 1):
        session = model.start(capacity=POSITIONS)
        parts = [session.feed_all(text[None, start : start + size])[0] for start in range(0, POSITIONS, size)]
        found.append(difference(own, {"logits": np.concatenate(parts)}))
    return worst(found)


def by_threads(model: GPT2, length: int) -> Difference:
    """The same calls from four of Python's threads at once."""
    own = answers(model, length)
    with ThreadPoolExecutor(4) as threads:
        return worst(difference(own, one) for one in threads.map(lambda _: answers(model, length), range(4)))


def served(model: GPT2, length: int) -> Difference:
    """Each text by the server's continuous batching, among twelve others that come and go."""
    from gpt2_np.server import Batched

    own = {name: value for name, value in answers(model, length).items() if name != "logits"}
    out: Answers = {}
    with Batched(model) as batched:
        others = [batched.submit("The sea", max_new_tokens=3 + 5 * n, do_sample=True, seed=n) for n in range(12)]
        waiting = {
            f"{how} {number}": batched.submit(prompt, max_new_tokens=length, **options)  # type: ignore[arg-type]
            for number, prompt in enumerate(PROMPTS)
            for how, options in (("best", {}), ("drawn", DRAWN))
        }
        for name, future in waiting.items():
            (written,) = future.result()
            out |= {f"text {name}": np.array(written.ids), f"logprobs {name}": np.array(written.logprobs)}
        for one in others:
            one.result()
    return difference(own, out)


def watched(model: GPT2, length: int) -> Difference:
    """The logits of a run in which every activation is captured."""
    return difference(logits(model), {"logits": model.run_with_cache(ids(model))[0]})


def edited(model: GPT2, length: int) -> Difference:
    """The same calls of a model with an edit that changes nothing."""
    return difference(answers(model, length), answers(model.with_edits({"blocks.2.resid_pre": lambda x: x}), length))


Within = Callable[[GPT2, int], Difference]
WITHIN: dict[str, Within] = {
    "the same call again": again,
    "the rest of the batch: alone, or a row of 2, 7, 40": in_batches,
    "how a text is cut: at once, in pieces of 16, of 7, id by id": in_pieces,
    "four of Python's threads at once": by_threads,
    "who else is served (`Batched`, twelve others come and go)": served,
    "every activation captured": watched,
    "an edit that changes nothing": edited,
}
