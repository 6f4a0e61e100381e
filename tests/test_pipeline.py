"""Options in any combination: never a crash, a forbidden token, or an empty distribution without the option's name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from decoders import Options, generate, pipeline, profiles
from decoders.chain import chain

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
p = st.floats(0.01, 0.99)
SAMPLERS = {
    "temperature": st.floats(0.05, 5),
    "top_k": st.integers(1, 20),
    "top_p": st.floats(0.01, 1),
    "min_p": st.floats(0, 1),
    "typical_p": p,
    "epsilon_cutoff": p,
    "eta_cutoff": p,
    "top_h": p,
    "top_n_sigma": st.floats(0.01, 3),
    "xtc_probability": st.floats(0, 1),
    "xtc_threshold": p,
    "dynatemp_range": st.floats(0.1, 3),
    "dynatemp_exponent": st.floats(0.1, 3),
    "mirostat": st.integers(1, 2),
    "mirostat_tau": st.floats(0.1, 9),
    "mirostat_eta": st.floats(0, 1),
    "min_tokens_to_keep": st.integers(1, 4),
    "seed": st.integers(0, 99),
    "order": st.permutations(profiles.WARPERS),
}
RULES = {
    "repetition_penalty": st.floats(0.1, 5),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "penalty_last_n": st.integers(1, 9),
    "dry_multiplier": st.floats(0.1, 1e30),
    "dry_base": st.floats(1, 9),
    "dry_allowed_length": st.integers(0, 3),
    "dry_penalty_last_n": st.integers(1, 9),
    "dry_sequence_breakers": st.just([[1], [2, 3]]),
    "no_repeat_ngram_size": st.integers(1, 4),
    "bad_words_ids": st.lists(st.lists(small, min_size=1, max_size=2), min_size=1, max_size=3),
    "suppress_tokens": st.lists(small, min_size=1, max_size=V),
    "begin_suppress_tokens": st.lists(small, min_size=1),
    "logit_bias": st.dictionaries(small, st.floats(-9, 9) | st.just(-np.inf), max_size=V),
    "sequence_bias": st.just({(1,): -2.0, (2, 3): 5.0}),
    "forced_bos_token_id": small,
    "forced_eos_token_id": small,
    "min_new_tokens": st.integers(0, 5),
    "min_length": st.integers(0, 9),
    "remove_invalid_values": st.booleans(),
    "exponential_decay_length_penalty": st.just((1, 1.5)),
    "renormalize_logits": st.booleans(),
    "prefix_allowed_tokens_fn": st.just(lambda number, ids: [0, 1, 2, 3, 4, 5]),
    "constraint": st.just(Evens()),
    "guidance_scale": st.sampled_from([0.5, 1.0, 2.0]),
    "negative_prompt_ids": st.just([1, 2]),
    "watermarking_config": st.sampled_from(
        [{}, {"seeding_scheme": "selfhash", "context_width": 2}, {"ngram_len": 3, "keys": [5, 6, 7]}]
    ),
}
LOOSE = {
    "xtc_threshold": "xtc_probability",
    "dynatemp_exponent": "dynatemp_range",
    "mirostat_tau": "mirostat",
    "mirostat_eta": "mirostat",
    "dry_base": "dry_multiplier",
    "dry_allowed_length": "dry_multiplier",
    "dry_penalty_last_n": "dry_multiplier",
    "dry_sequence_breakers": "dry_multiplier",
    "negative_prompt_ids": "guidance_scale",
}


@st.composite
def combinations(draw: st.DrawFn) -> dict:
    """Options that can be together, most of them several at once."""
    rules = draw(st.lists(st.sampled_from(list(RULES)), max_size=7, unique=True))
    sampling = draw(st.booleans())
    samplers = draw(st.lists(st.sampled_from(list(SAMPLERS)), max_size=6, unique=True)) if sampling else []
    if "mirostat" in samplers:
        samplers = [name for name in samplers if name not in (*profiles.MIROSTAT_REPLACES, "min_tokens_to_keep")]
    options = {name: draw((RULES | SAMPLERS)[name]) for name in (*rules, *samplers)}
    for name, needed in LOOSE.items():
        if needed not in options:
            options.pop(name, None)
    if not options.keys() & set(profiles.PENALTIES):
        options.pop("penalty_last_n", None)
    if not options.keys() & {"top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "xtc_probability"}:
        options.pop("min_tokens_to_keep", None)
    if "guidance_scale" in options:
        options["unconditional"] = lambda: Table(1)
    if "mirostat" not in options and draw(st.booleans()):
        options["num_beams"] = draw(st.integers(2, 4))
    return options | {"do_sample": sampling, "max_new_tokens": 6}


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
    checked = Options(eos_token_id=EOS, **options)
    processors = list(chain(checked, 0, 2, 9, ()))
    assert profiles.any_in_use(checked) or processors == []
    assert len(pipeline.build(checked, 0, 2, 9)) == len(processors)


@given(options=combinations(), rows=st.integers(1, 3), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_scores(options: dict, rows: int, data: st.DataObject) -> None:
    """Ties, −inf and extremes: a distribution comes out, or the option's name; what came in stays as it was."""
    if options.get("mirostat") or options.get("guidance_scale"):
        return
    options.pop("num_beams", None)
    values = st.sampled_from([-np.inf, -1e30, -1e4, -1.0, 0.0, 0.0, 1.0, 2.5, 1e4, 1e30])
    row = st.lists(values, min_size=V, max_size=V)
    scores = np.array(data.draw(st.lists(row, min_size=rows, max_size=rows)), np.float32)
    scores[:, data.draw(small)] = 1.0
    before, ids = scores.copy(), [np.array([0, 1, 2])] * rows
    try:
        out = pipeline.apply(pipeline.build(Options(eos_token_id=EOS, **options), 0, 2, 9), ids, scores)
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
