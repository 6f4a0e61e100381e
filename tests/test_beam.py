"""Beam search against transformers' `generate`: ids and scores, over every setting that changes them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, new_ids, random_ids, reference_generate, reference_model, seeded

from decoders import Options, generate

MODELS = {seed: reference_model(seed, vocab_size=19, n_positions=64, n_layer=1, n_embd=24) for seed in range(4)}
# Models drawn anew for each example: how many there are depends on how often hypothesis asks.
SHAPES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "vocab_size": st.integers(7, 40),
        "n_layer": st.integers(1, 3),
        "n_embd": st.sampled_from([8, 16, 24]),
        "tie_word_embeddings": st.booleans(),
    }
)


def drawn(shape: dict):
    """A model of a random shape."""
    return reference_model(shape["seed"], n_positions=32, n_head=2, **{k: v for k, v in shape.items() if k != "seed"})


def agree(model, prompts, seed: int, options: dict, eos: int | list[int] | None) -> None:
    theirs = reference_generate(model, prompts, seed, eos_token_id=eos, **options)
    asked = Options(eos_token_id=eos, **seeded(seed, options))
    if theirs.sequences_scores.isnan().any():  # transformers renormalized a beam that had nothing left
        return
    if float(theirs.sequences_scores.min()) < -1e6:  # where too few texts are possible, transformers returns others
        with pytest.raises(ValueError, match=r"number of texts found|no token is left"):
            generate(TorchStepper(model), prompts, asked)
        return
    ours = generate(TorchStepper(model), prompts, asked)
    longest = theirs.sequences.shape[1] - max(len(prompt) for prompt in prompts)
    ids = [completion.ids for completion in ours]
    for mine, row in zip(ids, new_ids(theirs, prompts), strict=True):
        assert mine == row[: len(mine)]
        assert set(row[len(mine) :]) <= {0, 3, -1}  # what transformers fills up with
    assert max(map(len, ids)) == longest
    np.testing.assert_allclose(
        [completion.score for completion in ours], theirs.sequences_scores.numpy(), atol=2e-5, rtol=1e-6
    )  # a length_penalty below 0 multiplies: float32 then has no more digits


OPTIONAL = {
    "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    "early_stopping": st.sampled_from([True, False, "never"]),
    "repetition_penalty": st.floats(0.8, 1.5),
    "no_repeat_ngram_size": st.integers(2, 3),
    "min_new_tokens": st.integers(0, 4),
    "renormalize_logits": st.booleans(),
}
RULES = OPTIONAL | {
    "sequence_bias": st.sampled_from([{(3,): 4.0}, {(3,): 2.0, (4, 5): 3.0}, {(6,): -3.0}]),
    "suppress_tokens": st.just([1, 2]),
    "begin_suppress_tokens": st.just([4]),
    "bad_words_ids": st.just([[5], [6, 4]]),
    "forced_eos_token_id": st.just(3),
    "exponential_decay_length_penalty": st.just((2, 1.1)),
    "num_return_sequences": st.integers(1, 3),
}


@given(
    number=st.sampled_from(sorted(MODELS)),
    length=st.integers(1, 5),
    rows=st.integers(1, 3),
    seed=st.integers(0, 1000),
    beams=st.integers(2, 5),
    wanted=st.integers(1, 5),
    new=st.integers(1, 14),
    data=st.data(),
    eos=st.sampled_from([None, 3, [3, 5]]),
)
@settings(max_examples=100, deadline=None)
def test_ids_and_scores_are_transformers_own(number, length, rows, seed, beams, wanted, new, data, eos) -> None:
    prompts = random_ids(rows, length, 19, seed).tolist()
    options = data.draw(st.fixed_dictionaries({}, optional=OPTIONAL))
    options |= {
        "num_beams": beams,
        "num_return_sequences": min(wanted, beams),
        "max_new_tokens": new,
        "min_new_tokens": min(new, options.get("min_new_tokens", 0)),
    }
    agree(MODELS[number], prompts, seed, options, eos)


@given(
    number=st.sampled_from(sorted(MODELS)),
    seed=st.integers(0, 2**32 - 1),
    beams=st.integers(2, 4),
    rows=st.integers(1, 3),
    eos=st.sampled_from([None, 3]),
    warp=st.fixed_dictionaries(
        {}, optional={"temperature": st.floats(0.5, 2.0), "top_k": st.integers(8, 19), "top_p": st.floats(0.6, 0.95)}
    ),
)
@settings(max_examples=50, deadline=None)
def test_beam_sampling_with_the_same_seed(number, seed, beams, rows, eos, warp) -> None:
    prompts = random_ids(rows, 3, 19, seed % 997).tolist()
    agree(MODELS[number], prompts, seed, {"num_beams": beams, "do_sample": True, "max_new_tokens": 8} | warp, eos)


def on_random_models(shape, rows, seed, beams, new, options, eos) -> None:
    """One random model, one random setting."""
    if eos is None:
        options.pop("exponential_decay_length_penalty", None)  # transformers needs an end-of-text for it
    options |= {
        "num_beams": beams,
        "max_new_tokens": new,
        "min_new_tokens": min(new, options.get("min_new_tokens", 0)),
        "num_return_sequences": min(beams, options.get("num_return_sequences", 1)),
    }
    agree(drawn(shape), random_ids(rows, 3, shape["vocab_size"], seed).tolist(), seed, options, eos)


CASE = given(
    shape=SHAPES,
    rows=st.integers(1, 2),
    seed=st.integers(0, 999),
    beams=st.integers(2, 7),
    new=st.integers(1, 12),
    options=st.fixed_dictionaries({}, optional=RULES),
    eos=st.sampled_from([None, 3, [3, 5]]),
)
test_random_models_and_settings = settings(max_examples=250, deadline=None)(CASE(on_random_models))
test_many_random_models = pytest.mark.slow(settings(max_examples=3000, deadline=None)(CASE(on_random_models)))


@pytest.mark.parametrize(
    ("shape", "prompt", "new", "options"),
    [
        (
            {"n_layer": 1, "n_embd": 24, "tie_word_embeddings": True},
            36,
            8,
            {
                "repetition_penalty": 0.86,
                "no_repeat_ngram_size": 3,
                "renormalize_logits": True,
                "suppress_tokens": [1, 2],
                "exponential_decay_length_penalty": (2, 1.1),
                "num_return_sequences": 2,
            },
        ),
        (
            {"n_layer": 1, "n_embd": 8, "tie_word_embeddings": False},
            841,
            6,
            {
                "length_penalty": 2.0,
                "no_repeat_ngram_size": 3,
                "suppress_tokens": [1, 2],
                "begin_suppress_tokens": [4],
                "bad_words_ids": [[5], [6, 4]],
                "forced_eos_token_id": 3,
                "num_return_sequences": 3,
            },
        ),
    ],
)
def test_what_may_not_be_chosen_takes_no_place_among_the_finished(shape, prompt, new, options) -> None:
    # More beams than tokens allowed: the first step's candidates hold an ended text that grew from a beam that may not
    # be chosen. With a place in the pool, the pool would be full too early for early_stopping.
    shape |= {"seed": 24174, "vocab_size": 7}
    on_random_models(shape, 2 if prompt == 841 else 1, prompt, 7, new, {"early_stopping": True} | options, 3)


def test_two_hundred_tokens() -> None:
    model = reference_model(9, vocab_size=50, n_positions=256, n_layer=2)
    agree(model, random_ids(1, 8, 50).tolist(), 0, {"num_beams": 4, "max_new_tokens": 220}, None)


def test_prompts_of_different_lengths_give_what_each_gives_alone() -> None:
    prompts = [random_ids(1, length, 19, length)[0].tolist() for length in (2, 7, 4)]
    options = Options(num_beams=3, num_return_sequences=2, max_new_tokens=12, eos_token_id=3)
    together = generate(TorchStepper(MODELS[0]), prompts, options)
    alone = [one for prompt in prompts for one in generate(TorchStepper(MODELS[0]), [prompt], options)]
    assert [one.ids for one in together] == [one.ids for one in alone]


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_enough_beam_finds_what_exhaustive_search_finds(seed: int) -> None:
    V, steps = 12, 2
    model, prompt = reference_model(seed, vocab_size=V, n_positions=16, n_layer=1), [1, 2]
    best = max(itertools.product(range(V), repeat=steps), key=lambda ids: total(model, prompt, ids))
    # As many beams as tokens: every first token survives, so every text of two is looked at.
    found = generate(TorchStepper(model), [prompt], Options(num_beams=V, max_new_tokens=steps))[0]
    assert tuple(found.ids) == best
    assert found.score == pytest.approx(total(model, prompt, best) / steps, abs=1e-5)
    narrow = generate(TorchStepper(model), [prompt], Options(num_beams=2, max_new_tokens=steps))[0]
    assert narrow.score <= found.score + 1e-6


def total(model, prompt: list[int], ids) -> float:
    """The log-probability of `ids` after `prompt`."""
    value, text = 0.0, list(prompt)
    for token in ids:
        logits = TorchStepper(model).feed([text])[0].astype(float)
        value += float(logits[token] - np.log(np.exp(logits).sum()))
        text.append(token)
    return value


def test_log_probabilities_follow_the_beam() -> None:
    found = generate(TorchStepper(MODELS[1]), [[1, 2]], Options(num_beams=4, max_new_tokens=10, length_penalty=0.0))[0]
    assert sum(found.logprobs) == pytest.approx(found.score, abs=1e-5)
    assert sum(found.logprobs) == pytest.approx(total(MODELS[1], [1, 2], found.ids), abs=1e-4)
