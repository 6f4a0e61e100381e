"""Drafts without a model: llama.cpp's own, call for call, and the text that the model writes without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_searches import model
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import Options, generate
from decoders.searches.ngram_drafts import KINDS, source
from decoders.searches.ngram_maps import SLOTS, hashes
from decoders.searches.ngram_tables import Pool
from gpt2_np import GPT2

# What llama.cpp's `common_ngram_simple_draft`, `common_ngram_map_draft`, `common_ngram_mod` and
# `common_ngram_cache_draft` propose for texts that are known beforehand: (ids before, the draft, how many were right).
GOLDEN = json.loads((Path(__file__).parent / "golden" / "ngram_drafts.json").read_text())


def sizes(case: dict[str, Any]) -> tuple[int, int, int, int, int]:
    return case["n"], case["m"], case["min_hits"], case["least"], case["most"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_drafts_are_llama_cpp_s(kind: str) -> None:
    cases = [case for case in GOLDEN if case["kind"] == kind]
    assert sum(bool(draft) for case in cases for _, draft, _ in case["drafts"]) >= 50
    for case in cases:
        ids, begin = case["ids"], case["prompt"]
        found = source(kind, *sizes(case))(ids[:begin])
        assert found.propose(ids[:begin], 99) == ([], [])  # a text's first id is never drafted
        for length, expected, accepted in case["drafts"]:
            assert found.propose(ids[:length], 99) == (expected, []), (case, length)
            found.learn(len(expected), accepted)


def test_two_n_grams_may_share_a_slot() -> None:
    # The first one keeps it, as in llama.cpp, and the other is not found: nothing wrong is drafted.
    random = np.random.default_rng(0)
    ngrams = random.integers(0, 50_000, (3 * SLOTS, 2))
    slots = hashes(ngrams)
    order = np.argsort(slots, kind="stable")
    same = np.flatnonzero(slots[order[1:]] == slots[order[:-1]])[0]
    first, second = ngrams[order[same]].tolist(), ngrams[order[same + 1]].tolist()
    assert first != second
    text = [9, *first, 1, 2, 3, *second, 4, 5, 6, 7, 8, 9, *second]
    mapped = source("ngram-map-k", 2, 3, 1, None, None)(text[:4])
    for length in range(5, len(text) + 1):
        found, _ = mapped.propose(text[:length], 9)
        mapped.learn(len(found), 0)
    assert found in ([], [4, 5, 6])
    pool = Pool(2)
    assert pool.slot([1, 2]) == (1 * 6364136223846793005 + 2) % 2**64 % 2**22


def written(chosen: Any, **options: Any):
    asked = {"max_new_tokens": 40, "eos_token_id": 3, "output_scores": True} | options
    return generate(chosen.start(), [[4, 5, 6, 4, 5, 6, 4, 5]], Options(**asked), context=chosen.config.n_positions)


@given(
    number=st.integers(0, 3),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 3),
    m=st.integers(1, 9),
    bounds=st.fixed_dictionaries({}, optional={"draft_min": st.integers(0, 3), "draft_max": st.integers(1, 9)}),
    how=st.sampled_from(
        [
            {},
            {"do_sample": True, "seed": 3},
            {"do_sample": True, "seed": 5, "temperature": 0.3, "top_k": 5, "num_return_sequences": 2},
            {"repetition_penalty": 1.2, "no_repeat_ngram_size": 4},
        ]
    ),
)
@settings(max_examples=25, deadline=None)
def test_the_text_is_the_one_without(number, kind, n, m, bounds, how) -> None:
    chosen = model(number)
    drafts = {"spec_type": kind, "spec_ngram_size_n": n, "spec_ngram_size_m": m, "draft_min": 1} | bounds
    found, plain = written(chosen, **how, **drafts), written(chosen, **how, prompt_lookup_num_tokens=1)
    for one, other in zip(found, plain, strict=True):
        assert (one.ids, one.finish_reason) == (other.ids, other.finish_reason)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-5)  # the readable path: BLAS sums otherwise
        for mine, theirs in zip(one.scores, other.scores, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
        assert one.assistance is not None
        assert one.assistance.accepted <= one.assistance.proposed


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_repeats_itself_takes_fewer_passes(kind: str) -> None:
    tales = GPT2.from_pretrained()
    prompt = "The king was old. " * 6
    drafts = {"spec_type": kind, "spec_ngram_size_n": 3, "spec_ngram_size_m": 6, "draft_min": 1}
    options: dict[str, Any] = {"max_new_tokens": 40, "eos_token_id": None}
    assisted, plain = tales.generate(prompt, **options, **drafts), tales.generate(prompt, **options)
    assert assisted.ids == plain.ids
    assert assisted.assistance is not None
    assert assisted.assistance.passes < 40
    assert "".join(tales.stream(prompt, **options, **drafts)) == plain.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec_type": "ngram"}, "spec_type must be 'ngram-simple', 'ngram-map-k', .* got 'ngram'"),
        ({"spec_type": "ngram-mod", "spec_ngram_size_n": 0}, "spec_ngram_size_n must be a whole number of at least 1"),
        ({"draft_max": 3}, "draft_max needs spec_type; give it too, or leave draft_max out"),
        ({"spec_type": "ngram-mod", "num_beams": 2}, "spec_type can't be combined with num_beams"),
        ({"spec_type": "ngram-mod", "prompt_lookup_num_tokens": 2}, "spec_type can't be combined with prompt_lookup"),
    ],
)
def test_what_can_t_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
