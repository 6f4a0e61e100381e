"""DoLa against transformers 4's, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from golden_searches import GOLDEN, model, ours, same_tokens

from decoders import Options, generate, stream
from decoders.searches.dola import candidate_layers


@pytest.mark.parametrize("case", GOLDEN["dola"])
def test_ids_and_scores_are_transformers_own(case) -> None:
    same_tokens(case)


@pytest.mark.parametrize(
    ("chosen", "n_layer", "tied", "layers"),
    [
        # transformers 4.55.4's own answers, worked out from its rules.
        ("low", 12, True, [2, 4]),
        ("high", 12, True, [6, 8, 10]),
        ("low", 12, False, [0, 2, 4]),
        ("low", 48, True, list(range(2, 20, 2))),
        ("high", 48, True, list(range(28, 48, 2))),
        ("low", 4, True, [2]),
        ("low", 2, True, [1]),
        ("low", 1, True, [0]),
        ([1, 3], 4, True, [1, 3]),
    ],
)
def test_low_and_high_mean_layers(chosen, n_layer, tied, layers) -> None:
    assert candidate_layers(chosen, n_layer, tied) == layers


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="'low' means no layer of a tied model with 3"):
        candidate_layers("low", 3, True)
    with pytest.raises(ValueError, match=r"dola_layers must be between 0 and 3, got \[4\]"):
        candidate_layers([2, 4], 4, True)
    with pytest.raises(ValueError, match="dola_layers needs a model that gives logits of its layers"):
        generate(object(), [[1]], Options(dola_layers="high"))


def test_each_prompt_of_a_batch_gets_what_it_gets_alone() -> None:
    settings = {"dola_layers": "low", "max_new_tokens": 9, "eos_token_id": 3}
    prompts = [[4], [7, 8, 9, 10], [5, 6]]
    together = ours({"model": 6, "prompts": prompts, "options": settings})
    alone = [one for prompt in prompts for one in ours({"model": 6, "prompts": [prompt], "options": settings})]
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_it_streams_in_several_samples_and_its_log_probabilities_are_the_model_s() -> None:
    options = Options(
        dola_layers=[0, 2], do_sample=True, seed=3, num_return_sequences=3, max_new_tokens=7, eos_token_id=3
    )
    found = generate(model(6).start(), [[4, 5]], options)
    tokens = list(stream(model(6).start(), [[4, 5]], options))
    for row, one in enumerate(found):
        assert [token.id for token in tokens if token.row == row] == one.ids
        logits = model(6)([4, 5, *one.ids])[1:-1].astype(float)
        own = [scores[token] - np.log(np.exp(scores).sum()) for scores, token in zip(logits, one.ids, strict=True)]
        np.testing.assert_allclose(one.logprobs, own, atol=1e-5)


class Only:
    """An automaton that allows these ids, at any place, and never ends."""

    def __init__(self, ids: list[int], V: int) -> None:
        self.mask = np.isin(np.arange(V), ids)

    def following(self, new) -> tuple[np.ndarray, bool]:
        return self.mask, False


def test_under_a_constraint_what_it_allows_is_judged_by_itself() -> None:
    chosen, prompt = model(6), [4, 5]
    V = chosen.config.vocab_size
    everything = Options(dola_layers=[0, 2], max_new_tokens=7, constraint=Only(list(range(V)), V))
    assert generate(chosen.start(), [prompt], everything)[0].ids == (
        generate(chosen.start(), [prompt], Options(dola_layers=[0, 2], max_new_tokens=7))[0].ids
    )
    for allowed in ([1, 2], [9], [3, 8, 11]):  # unlikely ones among them, which DoLa alone would remove
        options = Options(dola_layers=[0], max_new_tokens=5, constraint=Only(allowed, V), output_scores=True)
        (found,) = generate(chosen.start(), [prompt], options)
        text = list(prompt)
        for token, scores in zip(found.ids, found.scores, strict=True):
            final, early = chosen.start().feed_layers([text], [0])
            rows = final[0].astype(float), early[0, 0].astype(float)
            final, early = (row - np.log(np.exp(row).sum()) for row in rows)
            kept = [one for one in allowed if final[one] >= max(final[allowed]) + np.log(0.1)]
            assert np.flatnonzero(np.isfinite(scores)).tolist() == kept
            np.testing.assert_allclose(scores[kept], (final - early)[kept], atol=1e-4)
            assert token == max(kept, key=lambda one: final[one] - early[one])
            text.append(token)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dola_layers": "middle"}, "dola_layers must be 'low', 'high' or a list of layers, got 'middle'"),
        ({"dola_layers": []}, "dola_layers must be 'low', 'high' or a list"),
        ({"dola_layers": [-1]}, "dola_layers must be 'low', 'high' or a list"),
        ({"dola_layers": "low", "num_beams": 2}, "dola_layers can't be combined with num_beams"),
    ],
)
def test_contradictions_are_refused_by_name(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)
