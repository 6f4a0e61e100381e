"""Calls as people type them, for type checkers, never run: a line that ends in ``# refused`` must be an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from typing_extensions import assert_type

from gpt2_np import GPT2, Choice, Generation, Score
from gpt2_np.gradients import GradientRun, cross_entropy

model = GPT2.from_pretrained()
assert_type(model, GPT2)
assert_type(GPT2.from_pretrained("gpt2", dtype="int8", backend="numpy"), GPT2)
GPT2.from_pretrained(precision="int8")  # refused


# ---- one prompt without num_return_sequences gives a Generation, anything else a list


assert_type(model.generate("Once"), Generation)
assert_type(model.generate([1, 2, 3], max_new_tokens=3, do_sample=True, top_p=0.9, seed=1), Generation)
assert_type(model.generate("Once", stop_strings=["."], stopping_criteria=lambda prompt, new: len(new) > 3), Generation)
assert_type(model.generate("Once", num_beams=4, length_penalty=2.0, early_stopping="never"), Generation)
assert_type(model.generate("Once", num_beams=4, force_words_ids=[" king", [" queen", " lady"], [5, 6]]), Generation)
assert_type(model.generate("Once", guidance_scale=1.5, negative_prompt_ids="She was"), Generation)
assert_type(model.generate("Once", dry_multiplier=0.8, dry_sequence_breakers=["\n", [5, 6]]), Generation)
assert_type(model.generate("Once", regex="[a-z]+", generation_config=True), Generation)
assert_type(model.generate("Once", assistant_model="tales", top_k=None), Generation)
assert_type(model.generate("Once", num_return_sequences=1, do_sample=True), list[Generation])
assert_type(model.generate(["Once", "It"]), list[Generation])
assert_type(model.generate([[1, 2], [3]], max_new_tokens=3), list[Generation])
assert_type(model.generate(["Once", [3]], num_return_sequences=2, do_sample=True), list[Generation])
trace: list[Any] = []
assert_type(model.generate("Once", trace=trace), Generation)
assert_type(model.generate("Once").text, str)
assert_type(model.generate("Once").logprobs, list[float])

model.generate("Once", max_new_tokenz=3)  # refused
model.generate("Once", top_p="x")  # refused
model.generate("Once", max_new_tokens=3.5)  # refused
model.generate("Once", do_sample=1)  # refused
model.generate("Once", early_stopping="soon")  # refused
model.generate("Once", mirostat=3)  # refused
model.generate("Once", num_return_sequences="2")  # refused
model.generate("Once", stop_strings=3)  # refused
model.generate("Once", stopping_criteria=3)  # refused
model.generate(3)  # refused
model.generate("Once", 3)  # refused
unknown = model.generate("Once").txt  # refused
several = model.generate(["Once", "It"]).text  # refused


# ---- the other things that people call


assert_type(model.stream("Once", max_new_tokens=3, temperature=0.7, do_sample=True), Iterator[str])
model.stream("Once", temprature=0.7)  # refused
model.stream(["Once", "It"], top_k="5")  # refused

assert_type(model.score("Once"), Score)
assert_type(model.score([1, 2], prompt="It", stride=3), Score)
model.score("Once", strid=3)  # refused
model.score("Once", stride="3")  # refused
assert_type(model.score("Once").bits_per_byte, float)

assert_type(model.rank_choices("Once", [" a", " b"], by="byte"), list[Choice])
model.rank_choices("Once", [" a"], by="bytes")  # refused

logits, cache = model.run_with_cache([1, 2, 3], "blocks.*.attn.pattern")
pattern: np.ndarray = cache["blocks.0.attn.hook_pattern"]
model.run_with_cache([1, 2, 3], name="embed")  # refused
assert_type(model.with_edits({"embed": np.zeros(3)}), GPT2)
assert_type(model.run_with_gradients([1, 2], cross_entropy(), parameters=True), GradientRun)
model.run_with_gradients([1, 2], "loss")  # refused

ids: Sequence[int] = model.tokenizer.encode("Once")
