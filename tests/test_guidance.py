"""Classifier-free guidance against transformers' generate(guidance_scale=…, negative_prompt_ids=…), token for token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, new_ids, random_ids, reference_generate, reference_model

from decoders import Options, generate
from decoders.base.interface import log_softmax
from decoders.processors.guidance import Guidance

MODEL = reference_model(1, vocab_size=23, n_positions=64, n_layer=2)


def second() -> TorchStepper:
    return TorchStepper(MODEL)


def ids(rows: int, length: int, seed: int) -> list[list[int]]:
    return random_ids(rows, length, 23, seed).tolist()


@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 5),
    negative=st.none() | st.integers(1, 6),
    sampling=st.booleans(),
    scale=st.sampled_from([1.5, 0.0, 3.0, -0.5, 1.0]),
    seed=st.integers(0, 999),
    eos=st.sampled_from([None, 3]),
)
@settings(max_examples=60, deadline=None)
def test_the_same_tokens(rows, length, negative, sampling, scale, seed, eos) -> None:
    prompts, against = ids(rows, length, seed), None if negative is None else ids(rows, negative, seed + 1)
    names = {"do_sample": sampling, "max_new_tokens": 9, "guidance_scale": scale}
    theirs = reference_generate(
        MODEL,
        prompts,
        seed,
        eos_token_id=eos,
        **names,
        negative_prompt_ids=None if against is None else torch.tensor(against),
    )
    if scale == 1:
        against = None
    options = Options(
        eos_token_id=eos, seed=seed if sampling else None, negative_prompt_ids=against, unconditional=second, **names
    )
    ours = generate(TorchStepper(MODEL), prompts, options)
    assert [one.ids for one in ours] == new_ids(theirs, prompts, eos)


def test_several_sequences_and_one_negative_prompt_for_all() -> None:
    names = {"do_sample": True, "max_new_tokens": 9, "guidance_scale": 2.0, "num_return_sequences": 3}
    theirs = reference_generate(MODEL, [[4, 5]], 1, **names, negative_prompt_ids=torch.tensor([[7, 8, 9]] * 3))
    options = Options(seed=1, negative_prompt_ids=[7, 8, 9], unconditional=second, **names)
    ours = generate(TorchStepper(MODEL), [[4, 5]], options)
    assert [one.ids for one in ours] == new_ids(theirs, [[4, 5]])


def guided(text: list[int], prompt: int, scale: float, negative: list[int]) -> np.ndarray:
    """Guidance from its formula, everything computed anew."""
    ours, against = (log_softmax(TorchStepper(MODEL).feed([one])) for one in (text, negative + text[prompt:]))
    return (scale * (ours - against) + against)[0]


def test_beams_keep_their_own_past() -> None:
    options = Options(
        num_beams=3,
        num_return_sequences=3,
        max_new_tokens=6,
        guidance_scale=2.0,
        negative_prompt_ids=[7, 8],
        unconditional=second,
        length_penalty=0.0,
    )
    ours = generate(TorchStepper(MODEL), [[4, 5]], options)
    for one in ours:
        score, text = 0.0, [4, 5]
        for token in one.ids:
            score += guided(text, 2, 2.0, [7, 8])[token]
            text.append(token)
        assert one.score == pytest.approx(score, abs=1e-3)


def test_log_probabilities_stay_the_model_s_own() -> None:
    options = Options(max_new_tokens=3, guidance_scale=3.0, negative_prompt_ids=[7, 8], unconditional=second)
    one = generate(TorchStepper(MODEL), [[4, 5]], options)[0]
    text = [4, 5]
    for token, logprob in zip(one.ids, one.logprobs, strict=True):
        assert logprob == pytest.approx(log_softmax(TorchStepper(MODEL).feed([text]))[0, token], abs=1e-5)
        text.append(token)


def test_the_negative_prompt_takes_room_too() -> None:
    options = Options(guidance_scale=2.0, negative_prompt_ids=[1] * 62, unconditional=second)
    one = generate(TorchStepper(MODEL), [[4]], options, context=64)[0]
    assert len(one.ids) == 3


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="negative_prompt_ids needs guidance_scale"):
        Options(negative_prompt_ids=[1])
    with pytest.raises(ValueError, match="guidance_scale needs a second stepper: give unconditional, which makes one"):
        Options(guidance_scale=2.0)
    options = Options(guidance_scale=2.0, negative_prompt_ids=[[1], [2], [3]], unconditional=second)
    rule = "negative_prompt_ids must be one for all or one for each prompt \\(2\\), got 3"
    with pytest.raises(ValueError, match=rule):
        generate(TorchStepper(MODEL), [[1], [2]], options)
    guidance = Guidance(2.0, TorchStepper(MODEL), 1)
    guidance([np.array([1])], np.zeros((1, 23), np.float32))
    with pytest.raises(ValueError, match="guidance must see a text grow by one id at a time, got \\[2, 3\\]"):
        guidance([np.array([1, 2, 3])], np.zeros((1, 23), np.float32))
