"""Beams under a choice: each text comes once, in its best spelling, however many ways tokens have to spell it."""

from __future__ import annotations

from typing import Any

import pytest

from gpt2_np import GPT2
from gpt2_np.text.constraints import Automaton


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.mark.parametrize(
    "options", [{}, {"num_beam_groups": 2, "diversity_penalty": 0.5}, {"do_sample": True, "seed": 1}]
)
def test_beams_give_each_choice_once(model: GPT2, options: dict[str, Any]) -> None:
    """Tokens spell a choice in several ways, and beams find many of them: the best spelling of each text stays."""
    choices = [" good", " not good", " bad", " good", " goodness"]
    asked: dict[str, Any] = {"num_beams": 4, **options}
    found = model.generate(["The king was", "It was"], choice=choices, num_return_sequences=4, **asked)
    for some in (found[:4], found[4:]):
        assert sorted(one.text for one in some) == sorted(set(choices))
        assert [one.score for one in some] == sorted((one.score for one in some), key=lambda score: -score)
    (best,) = model.generate("The king was", choice=choices, num_return_sequences=1, **asked)
    if not options:
        assert (found[0].ids, found[0].score) == (best.ids, best.score)
        again = model.generate("The king was", choice=choices, num_return_sequences=4, **asked)
        assert [one.ids for one in again] == [one.ids for one in found[:4]]
    message = r"num_return_sequences must be at most the number of texts in choice \(4\), got 6"
    with pytest.raises(ValueError, match=message):
        model.generate("It", choice=choices, num_return_sequences=6, **asked | {"num_beams": 6})


def test_of_two_spellings_the_better_stays_and_the_place_is_filled(model: GPT2) -> None:
    """The search itself finds six spellings of one text: the best of them stays, and the other text comes beside it."""
    choices, asked = [" good", " not good"], {"num_beams": 6}
    constraint = Automaton(model._vocabulary, "choice", choices)
    raw = model.generate("The king was", constraint=Once(constraint), num_return_sequences=6, **asked)
    assert [one.text for one in raw] == [" not good"] * 6
    found = model.generate("The king was", choice=choices, num_return_sequences=2, **asked)
    assert sorted(one.text for one in found) == choices
    assert (found[0].ids, found[0].score) == (raw[0].ids, raw[0].score)
    ranked = model.rank_choices("The king was", choices)
    assert sorted(one.choice for one in ranked) == choices


def test_choices_that_length_cuts_off_stay_as_they_are(model: GPT2) -> None:
    found = model.generate(
        "It", choice=[" goodness", " not good"], num_beams=2, num_return_sequences=2, max_new_tokens=1
    )
    assert [one.finish_reason for one in found] == ["length", "length"]


class Once:
    """The same automaton, which doesn't say that it is one of choices."""

    def __init__(self, inner: Automaton) -> None:
        self.following = inner.following
