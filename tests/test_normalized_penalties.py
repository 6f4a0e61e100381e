"""Penalties on log-probabilities: transformers' classes after a log-softmax, its `generate`, and tables by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, new_ids, reference_generate, reference_model, seeded
from test_processors import compare, inputs
from transformers import LogitsProcessor
from transformers.generation import logits_process as theirs

from decoders import Options, generate
from decoders.base.interface import softmax
from decoders.generate import chain
from decoders.processors.encoder import EncoderRepetitionPenalty
from decoders.processors.penalties import RepetitionPenalty

MODEL = reference_model(1, vocab_size=23, n_positions=64, n_layer=2)
PROMPT = [4, 5, 4, 9]


class Normalized(LogitsProcessor):
    """One of transformers' penalties, applied to log-probabilities: how its pull request defines the option."""

    def __init__(self, penalty: LogitsProcessor) -> None:
        self.penalty = penalty

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self.penalty(input_ids, scores.log_softmax(-1))


@given(given_inputs=inputs(), penalty=st.floats(0.1, 5), length=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_the_penalties_are_transformers_own_after_a_log_softmax(given_inputs, penalty: float, length: int) -> None:
    # The penalty multiplies the rounding errors of both log-softmaxes too, or divides them.
    rounding = 1e-6 * max(penalty, 1 / penalty)
    reference = theirs.RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=length)
    compare(RepetitionPenalty(penalty, length, normalize=True), Normalized(reference), *given_inputs, atol=rounding)
    reference = theirs.EncoderRepetitionPenaltyLogitsProcessor(penalty, torch.tensor(given_inputs[0][:, :length]))
    compare(
        EncoderRepetitionPenalty(length, penalty, normalize=True), Normalized(reference), *given_inputs, atol=rounding
    )


@pytest.mark.parametrize(
    ("processor", "left"),
    [
        # A probability to the power of the penalty: 1/2 and 1/4 become 1/4 and 1/16, the last of the text 1/64.
        (RepetitionPenalty(2.0, normalize=True), [1 / 4, 1 / 16, 1 / 8, 1 / 64]),
        (RepetitionPenalty(2.0, 2, normalize=True), [1 / 2, 1 / 4, 1 / 8, 1 / 64]),
        (RepetitionPenalty(0.5, 1, normalize=True), [1 / 2, 1 / 2, 1 / 8, 1 / 8**0.5]),
        (EncoderRepetitionPenalty(2, 2.0, normalize=True), [1 / 2**0.5, 1 / 2, 1 / 8, 1 / 8]),
        # On logits the same penalty takes the root of what is above 1, and squares what is below it.
        (RepetitionPenalty(2.0), [2**0.5, 1, 1 / 2, 1 / 4]),
    ],
)
def test_four_tokens(processor, left: list[float]) -> None:
    scores = np.log(np.array([[2, 1, 1 / 2, 1 / 2]], np.float32))  # p is 1/2, 1/4, 1/8, 1/8
    np.testing.assert_allclose(np.exp(processor([np.array([0, 1, 3])], scores)[0]), left, rtol=1e-6)


@given(given_inputs=inputs(), constant=st.floats(-50, 50, width=32), penalty=st.floats(0.5, 3))
@settings(max_examples=150, deadline=None)
def test_a_constant_added_to_all_logits_changes_nothing(given_inputs, constant: float, penalty: float) -> None:
    ids, values = given_inputs
    values = values.clip(-30, 30)  # so that the sum keeps its digits
    for processor in (RepetitionPenalty(penalty, normalize=True), EncoderRepetitionPenalty(2, penalty, normalize=True)):
        one, other = (softmax(processor(list(ids), scores)) for scores in (values, values + np.float32(constant)))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_a_constant_added_to_all_logits_changes_the_penalty_on_logits() -> None:
    ids, values = [np.array([0])], np.array([[2.0, 1.0, -1.0]], np.float32)
    one, other = (softmax(RepetitionPenalty(1.5)(ids, scores))[0] for scores in (values, values - 5))
    assert one.argmax() == 0
    assert other.argmax() == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "temperature": 1.3, "top_p": 0.9},
        {"do_sample": True, "num_return_sequences": 2, "min_p": 0.05, "renormalize_logits": True},
        {"num_beams": 3},
        {"num_beams": 3, "do_sample": True, "temperature": 0.8},
    ],
)
@pytest.mark.parametrize("penalty", [1.4, 3.0])
def test_the_text_is_transformers_own(options: dict, penalty: float) -> None:
    options = options | {"max_new_tokens": 14}
    reference = Normalized(theirs.RepetitionPenaltyLogitsProcessor(penalty))
    expected = reference_generate(MODEL, [PROMPT], 7, logits_processor=[reference], **options)
    asked = Options(
        **seeded(7, options), repetition_penalty=penalty, repetition_penalty_normalize=True, output_scores=True
    )
    ours = generate(TorchStepper(MODEL), [PROMPT], asked)
    assert [completion.ids for completion in ours] == new_ids(expected, [PROMPT])
    if "num_beams" not in options:
        for row, completion in enumerate(ours):
            scores = [step[row].numpy() for step in expected.scores]
            np.testing.assert_allclose(completion.scores, scores, rtol=1e-4, atol=1e-4)


def test_beams_have_log_probabilities_already() -> None:
    plain = Options(num_beams=3, repetition_penalty=1.7, max_new_tokens=12)
    normalized = Options(num_beams=3, repetition_penalty=1.7, repetition_penalty_normalize=True, max_new_tokens=12)
    one, other = (generate(TorchStepper(MODEL), [PROMPT], asked)[0] for asked in (plain, normalized))
    assert one.ids == other.ids
    assert one.score == pytest.approx(other.score, rel=1e-5)


def test_what_goes_with_it() -> None:
    made = chain(Options(repetition_penalty=1.5, repetition_penalty_normalize=True, prompt_ignore_length=2), 0, 1, 9)
    assert made[0].processor == RepetitionPenalty(1.5, 2, normalize=True)
    both = {"encoder_repetition_penalty": 2.0, "encoder_repetition_penalty_normalize": True}
    assert chain(Options(**both), 0, 3, 9)[0].processor == EncoderRepetitionPenalty(3, 2.0, normalize=True)
    assert chain(Options(repetition_penalty=1.0, repetition_penalty_normalize=True), 0, 1, 9) == []
    for wrong, message in [
        ({}, "repetition_penalty_normalize needs repetition_penalty; give it too"),
        ({"repetition_penalty": 1.5, "penalty_last_n": 9}, "repetition_penalty_normalize can't be combined with pena"),
        ({"repetition_penalty": 1.5, "profile": "vllm"}, "profile 'vllm' has no repetition_penalty_normalize"),
        # Its own penalty_last_n isn't blamed, which nobody gave.
        ({"repetition_penalty": 1.5, "profile": "mlx-lm"}, "profile 'mlx-lm' has no repetition_penalty_normalize"),
    ]:
        with pytest.raises(ValueError, match=message):
            Options(**wrong, repetition_penalty_normalize=True)
    with pytest.raises(ValueError, match="encoder_repetition_penalty_normalize needs encoder_repetition_penalty"):
        Options(encoder_repetition_penalty_normalize=True)
