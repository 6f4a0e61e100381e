"""Values that mean "off", seeds and lengths: what people paste from elsewhere means here what it means there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fuzz_options import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, new_ids, reference_generate, reference_model

from decoders import Options, generate, methods
from decoders.base.method import Option
from decoders.generate import chain
from decoders.options import DEFAULTS
from decoders.processors.penalties import RecentPenalty, RepetitionPenalty
from gpt2_np import GPT2

MODEL = reference_model(1, vocab_size=23, n_positions=64, n_layer=2)
PROMPTS = [[4, 5, 4]]
# In transformers, whether sampling or not.
OFF = [
    {"top_k": 0},
    {"top_p": 1.0},
    {"typical_p": 1.0},
    {"min_p": 0.0},
    {"epsilon_cutoff": 0.0},
    {"epsilon_cutoff": 1.0},
    {"eta_cutoff": 0.0},
    {"eta_cutoff": 1.0},
    {"temperature": 1.0},
    {"no_repeat_ngram_size": 0},
    {"repetition_penalty": 1.0},
    {"min_length": 0},
    {"min_new_tokens": 0},
    {"length_penalty": 1.0},
    {"early_stopping": False},
    {"suppress_tokens": []},
    {"begin_suppress_tokens": []},
    {"guidance_scale": 1.0},
    {"num_beams": 1},
]
OFF += [{key: value for one in OFF for key, value in one.items()}]


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("off", OFF, ids=str)
def test_what_is_off_in_transformers_is_off_here(off: dict[str, Any], do_sample: bool) -> None:
    asked = {"do_sample": do_sample, "max_new_tokens": 12}
    theirs = reference_generate(MODEL, PROMPTS, 7, eos_token_id=3, **asked, **off)
    ours = generate(
        TorchStepper(MODEL), PROMPTS, Options(eos_token_id=3, **asked, **off, **({"seed": 7} if do_sample else {}))
    )
    assert [one.ids for one in ours] == new_ids(theirs, PROMPTS, 3)


STATED = [option for method in methods.every() for option in method.options if option.off]


@pytest.mark.parametrize("option", STATED, ids=lambda option: option.name)
def test_a_value_that_means_off_counts_as_not_given(option: Option) -> None:
    for value in option.off:
        options = Options(**{option.name: value})
        assert option.name not in options.given
        assert options.off == {option.name}
        assert getattr(options, option.name) == DEFAULTS[option.name]


def test_what_other_engines_call_off() -> None:
    """The searches that transformers has moved out of its core, and llama.cpp's own options."""
    for off in (
        {"penalty_alpha": 0.0, "top_k": 4},
        {"penalty_alpha": 0.0},
        {"diversity_penalty": 0.0, "num_beam_groups": 1},
        {"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1},
        {"dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1},
        {"xtc_probability": 0.0, "xtc_threshold": 0.3},
        {"dynatemp_range": 0.0, "dynatemp_exponent": 2.0},
        {"presence_penalty": 0.0, "frequency_penalty": 0.0, "penalty_last_n": 64},
    ):
        assert "top_k" in off or Options(**off).acting == []
        assert [one.ids for one in generate(Table(), [[1, 2]], Options(**off))] == [
            one.ids for one in generate(Table(), [[1, 2]], Options())
        ]


def test_what_is_not_off_is_still_refused_where_it_would_be_ignored() -> None:
    for asked in ({"top_k": 5}, {"top_p": 0.9}, {"temperature": 0.7}, {"mirostat_tau": 3.0}, {"length_penalty": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(asked))} (acts only|needs)"):
            Options(**asked)
    with pytest.raises(ValueError, match=r"^top_k must be a whole number of at least 1, got -1$"):
        Options(top_k=-1, do_sample=True)


@pytest.mark.parametrize(
    ("off", "name"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 1.0}, "top_p"),
        ({"min_p": 0.0}, "min_p"),
        ({"temperature": 1.0}, "temperature"),
    ],
)
def test_off_beats_a_profile_s_default(off: dict[str, Any], name: str) -> None:
    def names(**asked: Any) -> set[str]:
        return {named.option for named in chain(Options(profile="llama.cpp", do_sample=True, **asked), 0, 1, 9)}

    assert names() == {"top_k", "top_p", "min_p", "temperature"}
    assert names(**off) == names() - {name}


def test_off_in_a_profile_alone() -> None:
    with pytest.raises(ValueError, match=r"^top_n_sigma must be above 0, got -1$"):
        Options(do_sample=True, top_n_sigma=-1)
    for off in ({"top_n_sigma": -1.0}, {"top_n_sigma": 0}, {"typical_p": 1.0}, {"xtc_probability": 0.0}):
        assert Options(profile="llama.cpp", do_sample=True, **off).off == set(off)
    assert Options(profile="mlx-lm", do_sample=True, top_p=0.0, top_k=0).off == {"top_p", "top_k"}


# ---- a temperature of 0 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["llama.cpp", "mlx-lm"])
def test_a_temperature_of_zero_is_greedy_where_the_engine_has_it(profile: str) -> None:
    sampled = Options(profile=profile, do_sample=True, temperature=0, top_k=5, repetition_penalty=1.3, seed=1)
    greedy = Options(profile=profile, repetition_penalty=1.3)
    assert generate(Table(), [[1, 2]], sampled)[0].ids == generate(Table(), [[1, 2]], greedy)[0].ids
    (named,) = (one for one in chain(sampled, 0, 1, 9) if one.option == "temperature")
    scores = np.array([[1.0, 3.0, 3.0, -np.inf]], np.float32)
    np.testing.assert_array_equal(named.processor([np.array([0])], scores), [[-np.inf, 3, -np.inf, -np.inf]])


def test_a_temperature_of_zero_elsewhere_gets_a_hint() -> None:
    for profile in (None, "ctranslate2"):
        with pytest.raises(
            ValueError, match=r"^temperature must be above 0, got 0; leave do_sample out for greedy decoding$"
        ):
            Options(do_sample=True, temperature=0, profile=profile)
    with pytest.raises(ValueError, match=r"^temperature must be at least 0, got -1.0$"):
        Options(do_sample=True, temperature=-1.0, profile="llama.cpp")
    with pytest.raises(ValueError, match=r"^a temperature of 0 in mlx-lm can't be combined with xtc_probability"):
        Options(do_sample=True, temperature=0, profile="mlx-lm", xtc_probability=0.5)


# ---- how far penalties look back -----------------------------------------------------------------------------------


def test_minus_one_looks_at_everything_and_zero_at_nothing() -> None:
    def processors(**asked: Any) -> list[Any]:
        return [named.processor for named in chain(Options(**asked), 0, 3, 20)]

    (every,) = processors(repetition_penalty=1.5, penalty_last_n=-1)
    scores = np.random.default_rng(0).standard_normal((1, 9)).astype(np.float32)
    text = [np.array([1, 2, 3, 1, 5])]
    np.testing.assert_array_equal(every(text, scores), RepetitionPenalty(1.5)(text, scores))
    np.testing.assert_array_equal(every(text, scores), RecentPenalty(99, 1.5)(text, scores))
    for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert processors(**{name: 1.5, "penalty_last_n": 0}) == []
        for wide in (-1, 99):  # llama.cpp's own 64 ids are no more than these
            (processor,) = processors(**{name: 1.5, "penalty_last_n": wide, "profile": "llama.cpp"})
            assert processor.last_n == wide
    assert processors(dry_multiplier=1.0, dry_penalty_last_n=0) == []
    assert processors(dry_multiplier=1.0, dry_penalty_last_n=-1) == processors(dry_multiplier=1.0)


# ---- seeds ---------------------------------------------------------------------------------------------------------


@given(seed=st.integers(-(2**63), 2**64 - 1) | st.sampled_from([-1, -(2**63), 2**63, 2**64 - 1]))
@settings(max_examples=60, deadline=None)
def test_every_seed_that_torch_takes_gives_torch_s_stream(seed: int) -> None:
    asked = {"do_sample": True, "max_new_tokens": 8}
    theirs = reference_generate(MODEL, PROMPTS, seed, eos_token_id=None, **asked)
    ours = generate(TorchStepper(MODEL), PROMPTS, Options(seed=seed, **asked))
    assert [one.ids for one in ours] == new_ids(theirs, PROMPTS, None)
    torch.manual_seed(seed)
    assert Options(seed=seed, do_sample=True).seed == torch.initial_seed()


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**30])
def test_what_torch_refuses_as_a_seed_is_refused(seed: int) -> None:
    with pytest.raises(ValueError):
        torch.manual_seed(seed)
    with pytest.raises(ValueError, match=rf"^seed must be a whole number from -2\*\*63 to 2\*\*64 - 1, got {seed}$"):
        Options(seed=seed, do_sample=True)


def test_a_negative_seed_drives_coins_beams_and_the_other_stream() -> None:
    def ids(**asked: Any) -> list[list[int]]:
        return [one.ids for one in generate(Table(), [[1, 2]], Options(do_sample=True, max_new_tokens=9, **asked))]

    for more in (
        {"xtc_probability": 0.5, "xtc_threshold": 0.05},
        {"num_beams": 3, "stochastic_beams": True},
        {"rng": "cuda"},
    ):
        assert ids(seed=-5, **more) == ids(seed=2**64 - 5, **more) != ids(seed=5, **more)


# ---- lengths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"num_beams": 3}, {}, {"do_sample": True}], ids=str)
def test_max_length_counts_the_prompt(asked: dict[str, Any]) -> None:
    more = {"forced_eos_token_id": 3, "max_length": 10}
    theirs = reference_generate(MODEL, PROMPTS, 7, max_new_tokens=None, eos_token_id=3, **asked, **more)
    seed = {"seed": 7} if "do_sample" in asked else {}
    ours = generate(TorchStepper(MODEL), PROMPTS, Options(eos_token_id=3, **asked, **more, **seed))
    assert [one.ids for one in ours] == new_ids(theirs, PROMPTS, 3)
    assert len(ours[0].ids) <= 7


def test_max_new_tokens_goes_before_max_length() -> None:
    for most in (6, 50):  # the default too, where it is named
        options = Options.from_names({"max_new_tokens": most, "max_length": 10})
        assert [len(one.ids) for one in generate(Table(), [[1], [1, 2, 4, 4]], options)] == [most, most]
    options = Options.from_names({"max_length": 10})
    assert [len(one.ids) for one in generate(Table(), [[1], [1, 2, 4, 4]], options)] == [9, 6]
    assert [len(one.ids) for one in generate(Table(), [[1], [1, 2, 4, 4]], options, context=7)] == [7, 4]


def test_max_length_must_exceed_the_prompt(small) -> None:
    with pytest.raises(ValueError, match=r"^max_length must be a whole number of at least 1, got 0$"):
        Options(max_length=0)
    model = GPT2.from_pretrained(small, backend="numpy")
    assert len(model.generate([1, 2, 3], max_length=8, eos_token_id=None).ids) == 5
    for length in (3, 2):
        rule = r"max_length counts the prompt, so it must be above its length \(3\)"
        with pytest.raises(ValueError, match=f"^{rule}, got {length}$"):
            model.generate([1, 2, 3], max_length=length)
        with pytest.raises(ValueError, match=f"^{rule}, got {length}$"):
            list(model.stream([1, 2, 3], max_length=length))
