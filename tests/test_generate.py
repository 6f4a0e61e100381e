"""The loop and the samplers against transformers' `generate`: the same seed, the same ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, new_ids, random_ids, reference_generate, reference_model, seeded

from decoders import Options, generate, stream

EOS = 3
MODEL = reference_model(1, vocab_size=23, n_positions=64, n_layer=2)


def prompts_of(lengths: list[int], seed: int) -> list[list[int]]:
    return [random_ids(1, length, 23, seed + number)[0].tolist() for number, length in enumerate(lengths)]


def agree(prompts: list[list[int]], seed: int, options: dict, eos: int | None) -> None:
    theirs = reference_generate(MODEL, prompts, seed, eos_token_id=eos, **options)
    ours = generate(TorchStepper(MODEL), prompts, Options(eos_token_id=eos, **seeded(seed, options)))
    assert [completion.ids for completion in ours] == new_ids(theirs, prompts, eos)
    for completion in ours:
        ended = eos is not None and completion.ids[-1] == eos
        assert completion.finish_reason == ("stop" if ended else "length")
        assert len(completion.logprobs) == len(completion.ids)


@pytest.mark.parametrize("eos", [None, EOS])
def test_greedy(eos: int | None) -> None:
    agree(prompts_of([5], 0), 0, {"max_new_tokens": 40}, eos)
    agree(prompts_of([5, 2, 9], 0), 0, {"max_new_tokens": 30}, eos)


SAMPLING = {
    "temperature": st.floats(0.1, 3.0),
    "top_k": st.integers(1, 30),
    "top_p": st.floats(0.05, 0.99),
    "min_p": st.floats(0.0, 0.9),
    "typical_p": st.floats(0.05, 0.95),
    "epsilon_cutoff": st.floats(0.001, 0.3),
    "eta_cutoff": st.floats(0.001, 0.3),
    "top_h": st.floats(0.05, 1.0),
    "repetition_penalty": st.floats(0.5, 2.0),
    "no_repeat_ngram_size": st.integers(1, 4),
    "renormalize_logits": st.booleans(),
    "min_new_tokens": st.integers(0, 5),
    "num_return_sequences": st.integers(1, 3),
    "suppress_tokens": st.just([1, 2]),
    "exponential_decay_length_penalty": st.just((2, 1.2)),
    "begin_suppress_tokens": st.just([4, 5]),
    "bad_words_ids": st.just([[7], [8, 9], [3]]),
    "sequence_bias": st.just({(5,): 2.0, (6, 7): -3.0}),
    "forced_eos_token_id": st.just(EOS),
}


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    options=st.fixed_dictionaries({}, optional=SAMPLING),
    eos=st.sampled_from([None, EOS]),
)
@settings(max_examples=120, deadline=None)
def test_the_same_seed_gives_transformers_own_sample(lengths, seed, options, eos) -> None:
    if options.get("no_repeat_ngram_size") == 1:
        options["no_repeat_ngram_size"] = 2  # 23 tokens would run out
    if options.get("sequence_bias") and len(set(lengths)) > 1:
        lengths = lengths[:1]
    if eos is None:
        options.pop("exponential_decay_length_penalty", None)  # transformers needs an end-of-text for it
    if len(set(lengths)) > 1:
        # transformers pads on the left, and there the padding counts as text; here a prompt is what it is alone.
        for name in ("no_repeat_ngram_size", "min_length", "repetition_penalty", "bad_words_ids"):
            options.pop(name, None)
    agree(prompts_of(lengths, seed % 1000), seed, options | {"do_sample": True, "max_new_tokens": 8}, eos)


def test_a_seed_is_a_seed() -> None:
    def ids(seed: int | None) -> list[int]:
        options = Options(do_sample=True, seed=seed, max_new_tokens=30)
        return generate(TorchStepper(MODEL), [[1, 2]], options)[0].ids

    assert ids(7) == ids(7) != ids(8)
    assert ids(None) != ids(None)


def test_log_probabilities_are_the_models_own_before_any_processor() -> None:
    options = Options(
        do_sample=True, seed=0, temperature=3.0, top_k=5, suppress_tokens=[1], max_new_tokens=10, top_logprobs=3
    )
    completion = generate(TorchStepper(MODEL), [[4, 5]], options)[0]
    text = [4, 5]
    for token, logprob, top in zip(completion.ids, completion.logprobs, completion.top, strict=True):
        logits = TorchStepper(MODEL).feed([text])[0].astype(float)
        expected = logits - np.log(np.exp(logits).sum())
        assert logprob == pytest.approx(expected[token], abs=1e-5)
        assert [one for one, _ in top] == np.argsort(-expected)[:3].tolist()
        assert top[0][1] == pytest.approx(expected.max(), abs=1e-5)
        text.append(token)


def test_scores_are_what_the_sampler_saw() -> None:
    theirs = reference_generate(MODEL, [[4, 5]], 1, do_sample=True, temperature=0.7, top_k=4, max_new_tokens=6)
    options = Options(do_sample=True, seed=1, temperature=0.7, top_k=4, max_new_tokens=6, output_scores=True)
    ours = generate(TorchStepper(MODEL), [[4, 5]], options)[0].scores
    np.testing.assert_allclose(ours, [score[0].numpy() for score in theirs.scores], atol=1e-5)


def test_a_stream_tells_each_token_as_it_comes_and_why_it_ended() -> None:
    tokens = list(stream(TorchStepper(MODEL), [[1], [2, 3]], Options(max_new_tokens=3)))
    assert [token.row for token in tokens] == [0, 1, 0, 1, 0, 1]
    assert [token.finish_reason for token in tokens] == [None] * 4 + ["length"] * 2


def test_the_context_ends_a_text() -> None:
    completions = generate(TorchStepper(MODEL), [[1] * 62, [1] * 64], Options(max_new_tokens=50), context=64)
    assert [len(completion.ids) for completion in completions] == [3, 1]
    assert {completion.finish_reason for completion in completions} == {"length"}
    with pytest.raises(ValueError, match="the prompt must have at most 64 tokens, the model's context, got 65"):
        generate(TorchStepper(MODEL), [[1] * 65], Options(), context=64)
    with pytest.raises(ValueError, match="a prompt must have at least one id, got none"):
        generate(TorchStepper(MODEL), [[]], Options())


def test_a_callable_stops() -> None:
    completion = generate(TorchStepper(MODEL), [[1, 2]], Options(), stopping=[lambda prompt, new: len(new) == 4])[0]
    assert (len(completion.ids), completion.finish_reason) == (4, "stop")


def test_time_runs_out() -> None:
    completion = generate(TorchStepper(MODEL), [[1, 2]], Options(max_time=1e-9))[0]
    assert (len(completion.ids), completion.finish_reason) == (1, "length")


def test_draws_given_as_data() -> None:
    options = Options(do_sample=True, uniforms=[0.0, 0.999999, 0.5], max_new_tokens=3)
    text = [1, 2]
    for u, token in zip(options.uniforms, generate(TorchStepper(MODEL), [[1, 2]], options)[0].ids, strict=True):
        logits = TorchStepper(MODEL).feed([text])[0].astype(float)
        p = np.cumsum(np.exp(logits) / np.exp(logits).sum())
        assert token == int((p <= u).sum())
        text.append(token)
    with pytest.raises(ValueError, match="uniforms must hold one number a token, got 3"):
        generate(TorchStepper(MODEL), [[1, 2]], Options(do_sample=True, uniforms=[0.1] * 3, max_new_tokens=4))


def test_an_emptied_distribution_names_what_emptied_it() -> None:
    with pytest.raises(ValueError, match="no token is left to choose from after suppress_tokens: Suppress"):
        generate(TorchStepper(MODEL), [[1]], Options(suppress_tokens=list(range(23))))
