"""Contrastive search against transformers 4's, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from golden_searches import GOLDEN, model, ours, same_tokens

from decoders import Options, generate, stream


@pytest.mark.parametrize("case", GOLDEN["contrastive"])
def test_ids_and_scores_are_transformers_own(case) -> None:
    same_tokens(case)


def test_each_prompt_of_a_batch_gets_what_it_gets_alone() -> None:
    settings = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 9, "eos_token_id": 3}
    prompts = [[4], [7, 8, 9, 10], [5, 6]]
    together = ours({"model": 1, "prompts": prompts, "options": settings})
    alone = [one for prompt in prompts for one in ours({"model": 1, "prompts": [prompt], "options": settings})]
    assert [one.ids for one in together] == [one.ids for one in alone]
    np.testing.assert_allclose(together[0].logprobs, alone[0].logprobs, atol=1e-5)


def test_it_streams_and_its_log_probabilities_are_the_model_s() -> None:
    options = Options(penalty_alpha=0.6, top_k=4, max_new_tokens=7, repetition_penalty=1.3, top_logprobs=2)
    tokens = list(stream(model(0).start(), [[4, 5]], options))
    whole = generate(model(0).start(), [[4, 5]], options)[0]
    assert [token.id for token in tokens] == whole.ids
    assert tokens[-1].finish_reason == "length"
    assert all(len(token.top) == 2 for token in tokens)
    logits = model(0)([4, 5, *whole.ids])[1:-1].astype(float)
    own = [row[token] - np.log(np.exp(row).sum()) for row, token in zip(logits, whole.ids, strict=True)]
    np.testing.assert_allclose(whole.logprobs, own, atol=1e-5)


def test_the_last_token_fits_into_the_context() -> None:
    context = model(0).config.n_positions
    options = Options(penalty_alpha=0.6, top_k=2, max_new_tokens=99)
    found = generate(model(0).start(), [[4, 5]], options, context=context)[0]
    assert len(found.ids) == context - 2
    assert found.finish_reason == "length"
    with pytest.raises(ValueError, match="the prompt must have at most 47 tokens"):
        generate(model(0).start(), [[4] * context], options, context=context)


def test_a_stepper_without_hidden_states_is_refused() -> None:
    with pytest.raises(ValueError, match="penalty_alpha needs a model that shows its hidden states"):
        generate(object(), [[1]], Options(penalty_alpha=0.6, top_k=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty_alpha": 0.6}, "penalty_alpha needs top_k of at least 2"),
        ({"penalty_alpha": 0.6, "top_k": 1}, "penalty_alpha needs top_k of at least 2"),
        ({"penalty_alpha": 1.5, "top_k": 4}, r"penalty_alpha must be in \(0, 1\], got 1.5"),
        ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": True}, "can't be combined with do_sample"),
        ({"penalty_alpha": 0.6, "top_k": 4, "num_beams": 2}, "can't be combined with num_beams"),
        ({"top_k": 4}, "top_k acts only when sampling"),
    ],
)
def test_contradictions_are_refused_by_name(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
