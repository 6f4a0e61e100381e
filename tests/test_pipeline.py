"""Options in any combination: never a crash, a forbidden token, or an empty distribution without the option's name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from option_strategies import asked_for, possible, values_of

from decoders import Options, generate, methods
from decoders.generate import chain
from decoders.processors import pipeline

V, EOS = 12, 3


class Table:
    """Logits that depend on the last id alone."""

    def __init__(self, seed: int = 0) -> None:
        self.table = np.random.default_rng(seed).standard_normal((V, V)).astype(np.float32) * 3

    def feed(self, ids) -> np.ndarray:
        return self.table[[row[-1] for row in ids]]

    def reorder(self, rows) -> None:
        pass


class Evens:
    """An automaton: even ids, and an end after two of them."""

    def following(self, new) -> tuple[np.ndarray, bool]:
        possible = all(token % 2 == 0 for token in new)
        return (np.arange(V) % 2 == 0) & possible, possible and len(new) >= 2


small = st.integers(0, V - 1)
# What is a caller's own can't be drawn.
OWN = {
    "prefix_allowed_tokens_fn": lambda number, ids: [0, 1, 2, 3, 4, 5],
    "constraint": Evens(),
    "unconditional": lambda: Table(1),
}
PROCESSORS = [method for method in methods.every() if method.make is not None]
SAMPLERS = [one.name for method in PROCESSORS if method.only == "sampling" for one in method.options]
SAMPLERS += ["order", "min_tokens_to_keep", "seed"]
RULES = [one.name for method in PROCESSORS if method.only != "sampling" for one in method.options]


@st.composite
def combinations(draw: st.DrawFn) -> dict:
    """Options that can be together, most of them several at once."""
    names = draw(st.lists(st.sampled_from(RULES), max_size=7, unique=True))
    sampling = draw(st.booleans())
    names += draw(st.lists(st.sampled_from(SAMPLERS), max_size=6, unique=True)) if sampling else []
    options = {name: OWN[name] if name in OWN else draw(values_of(methods.option(name), V)) for name in names}
    for method in asked_for(options):  # what is a caller's own is given beside what it belongs to
        options |= {one.name: OWN[one.name] for one in method.options if one.name in OWN}
    if draw(st.booleans()):
        options["num_beams"] = draw(st.integers(2, 4))
    return possible(options | {"do_sample": sampling, "max_new_tokens": 6})


def forbidden(token: int, text: list[int], options: dict) -> str | None:
    """The option that forbids a token after a text, if one does.

    prefix_allowed_tokens_fn has the last word over the rules before it, as in transformers: where they leave nothing
    that it allows, everything that it allows is possible again.
    """
    if token in options.get("suppress_tokens", ()):
        return "suppress_tokens"
    if "prefix_allowed_tokens_fn" in options:
        return "prefix_allowed_tokens_fn" if token > 5 else None
    for word in options.get("bad_words_ids", ()):
        if [*text, token][-len(word) :] == word and word != [EOS]:
            return "bad_words_ids"
    if options.get("logit_bias", {}).get(token) == -np.inf:
        return "logit_bias"
    if token == EOS and len(text) < max(2 + options.get("min_new_tokens", 0), options.get("min_length", 0)):
        return "min_length"
    n = options.get("no_repeat_ngram_size", 99)
    grams = [[*text, token][i : i + n] for i in range(len(text) + 2 - n)]
    if len(grams) != len({tuple(gram) for gram in grams}):
        return "no_repeat_ngram_size" if grams[-1] in grams[:-1] else None
    return None


def emptied_by(error: ValueError) -> str:
    """The option that an error blames."""
    if " must keep scores within " in str(error):
        return str(error).split(" ")[0].strip(",")
    return str(error).removeprefix("no token is left to choose from after ").split(":")[0]


@given(options=combinations(), prompts=st.sampled_from([[[0, 1]], [[0, 1], [4, 5]]]))
@settings(max_examples=400, deadline=None)
def test_any_combination(options: dict, prompts: list[list[int]]) -> None:
    try:
        completions = generate(Table(), prompts, Options(eos_token_id=EOS, **options))
    except ValueError as error:
        if emptied_by(error) not in options and not str(error).startswith("num_return_sequences"):
            raise
        event("emptied")
        return
    for number, completion in enumerate(completions):
        assert 1 <= len(completion.ids) <= 6
        text = list(prompts[number])
        for token in completion.ids:
            forced = {options.get("forced_bos_token_id"), options.get("forced_eos_token_id")}
            if completion.score is None or np.isfinite(completion.score):
                assert token in forced or forbidden(token, text, options) is None, (token, text)
                if "constraint" in options:
                    assert token % 2 == 0 or (token == EOS and len(text) >= len(prompts[number]) + 2)
            text.append(token)


@given(options=combinations())
@settings(max_examples=200, deadline=None)
def test_no_processor_acts_that_is_not_known_to_act(options: dict) -> None:
    named = [one.option for one in chain(Options(eos_token_id=EOS, **options), 0, 2, 9)]
    asked = [method.name for method in asked_for(options) if method.make is not None]
    assert set(named) <= set(asked)
    assert len(named) == len(set(named))
    if "order" not in options:
        assert named == [name for name in asked if name in named]


@given(options=combinations(), rows=st.integers(1, 3), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_scores(options: dict, rows: int, data: st.DataObject) -> None:
    """Ties, −inf and extremes: a distribution comes out, or the option's name; what came in stays as it was."""
    if any(method.has_past for method in Options(**options).acting):
        return
    options.pop("num_beams", None)
    values = st.sampled_from([-np.inf, -1e30, -1e4, -1.0, 0.0, 0.0, 1.0, 2.5, 1e4, 1e30])
    row = st.lists(values, min_size=V, max_size=V)
    scores = np.array(data.draw(st.lists(row, min_size=rows, max_size=rows)), np.float32)
    scores[:, data.draw(small)] = 1.0
    before, ids = scores.copy(), [np.array([0, 1, 2])] * rows
    try:
        out = pipeline.apply(chain(Options(eos_token_id=EOS, **options), 0, 2, 9), ids, scores)
    except ValueError as error:
        if emptied_by(error) not in options:
            raise
    else:
        assert not np.isnan(out).any()
        assert (out > -np.inf).any(axis=-1).all()
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"suppress_tokens": list(range(V))}, "suppress_tokens"),
        ({"bad_words_ids": [[token] for token in range(V)]}, "bad_words_ids"),
        ({"logit_bias": dict.fromkeys(range(V), -np.inf)}, "logit_bias"),
        ({"no_repeat_ngram_size": 1, "max_new_tokens": 50}, "no_repeat_ngram_size"),
        ({"forced_bos_token_id": 1, "suppress_tokens": [1], "prompt": [[0]]}, "suppress_tokens"),
    ],
)
def test_who_emptied_the_distribution(options: dict, name: str) -> None:
    prompts = options.pop("prompt", [[0, 1]])
    with pytest.raises(ValueError, match=f"^no token is left to choose from after {name}: "):
        generate(Table(), prompts, Options(**options))
