"""Assistance: the same text as without, and for prompt look-up in transformers' number of passes."""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import new_ids, random_ids, reference_generate, reference_model, save
from scipy import stats

from decoders import Options, generate, stream
from decoders.base.interface import Assistance, softmax
from decoders.random.torch_rng import CPU, CUDA
from gpt2_np import GPT2

EOS = 3
SHAPE = {"vocab_size": 23, "n_positions": 64, "n_layer": 2}
MODEL, SMALLER = reference_model(1, **SHAPE), reference_model(2, **SHAPE)
with torch.no_grad():  # a draft that often agrees
    for mine, other in zip(SMALLER.parameters(), MODEL.parameters(), strict=True):
        mine.copy_(other + 0.02 * torch.randn(other.shape, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT2, GPT2]:
    """The model and its draft."""
    folders = [save(one, tmp_path_factory.mktemp("assisted")) for one in (MODEL, SMALLER)]
    return loaded(folders[0]), loaded(folders[1])


@functools.cache
def loaded(folder: Path) -> GPT2:
    return GPT2.from_pretrained(folder)


def prompt_of(length: int, seed: int) -> list[int]:
    return random_ids(1, length, 23, seed)[0].tolist()


def assisted(model: GPT2, prompt: list[int], options: dict, eos: int | None = EOS):
    settings = Options(eos_token_id=eos, **options)
    return generate(model.start(), [prompt], settings, context=model.config.n_positions)[0]


RULES = {
    "repetition_penalty": st.floats(0.5, 2.0),
    "no_repeat_ngram_size": st.integers(2, 4),
    "min_new_tokens": st.integers(0, 9),
    "suppress_tokens": st.just([1, 2]),
    "forced_eos_token_id": st.just(EOS),
    "begin_suppress_tokens": st.just([4, 5]),
    "bad_words_ids": st.just([[7], [8, 9], [3]]),
    "exponential_decay_length_penalty": st.just((2, 1.2)),
    "forced_bos_token_id": st.just(6),
    "sequence_bias": st.just({(5,): 2.0, (6, 7): -3.0}),
    "frequency_penalty": st.floats(-1.0, 1.0),
}
OURS = {"dry_multiplier": st.just(0.8), "logit_bias": st.just({4: -1.0}), "guidance_scale": st.just(1.5)}
SAMPLING = {
    "temperature": st.floats(0.2, 2.0),
    "top_k": st.integers(1, 20),
    "top_p": st.floats(0.1, 0.99),
    "xtc_probability": st.just(0.5),
    "mirostat": st.sampled_from([1, 2]),
    "min_p": st.floats(0, 0.5),
}
LOOKUP = st.fixed_dictionaries(
    {"prompt_lookup_num_tokens": st.integers(1, 60)}, optional={"max_matching_ngram_size": st.integers(1, 4)}
)
DRAFT = st.fixed_dictionaries(
    {},
    optional={
        "num_assistant_tokens": st.integers(1, 60),
        "assistant_confidence_threshold": st.sampled_from([0.0, 0.2, 0.9]),
        "num_assistant_tokens_schedule": st.sampled_from(["constant", "heuristic", "heuristic_transient"]),
    },
)
TOLD = {"top_logprobs": 3, "output_scores": True}


def same(one, other) -> None:
    """Bit for bit: tokens, log-probabilities, alternatives, scores, why it stopped."""
    assert one.ids == other.ids
    assert (one.logprobs, one.top, one.finish_reason) == (other.logprobs, other.top, other.finish_reason)
    np.testing.assert_array_equal(one.scores, other.scores)


@given(
    length=st.integers(1, 40),
    seed=st.integers(0, 99),
    new=st.integers(1, 60),
    eos=st.sampled_from([None, EOS]),
    options=st.fixed_dictionaries({}, optional=RULES | OURS),
    how=LOOKUP | DRAFT,
)
@settings(max_examples=60, deadline=None)
def test_greedy_is_the_same_bit_for_bit(pair, length, seed, new, eos, options, how) -> None:
    model, draft = pair
    if "guidance_scale" in options:
        options["unconditional"] = model.start
    options |= TOLD | {"max_new_tokens": max(new, options.get("min_new_tokens", 1))}
    prompt = prompt_of(length, seed)
    how = how if "prompt_lookup_num_tokens" in how else how | {"assistant_model": draft.start}
    try:
        alone = assisted(model, prompt, options, eos)
    except ValueError as error:  # the rules leave no token, which assistance can't mend
        with pytest.raises(ValueError, match=re.escape(str(error))):
            assisted(model, prompt, options | how, eos)
        return
    found = assisted(model, prompt, options | how, eos)
    same(found, alone)
    assert found.assistance is not None
    assert found.assistance.accepted <= found.assistance.proposed
    assert found.assistance.passes <= len(found.ids) <= found.assistance.passes + found.assistance.accepted


@given(
    length=st.integers(1, 40),
    seed=st.integers(0, 99),
    how=LOOKUP,
    options=st.fixed_dictionaries({}, optional=RULES | SAMPLING),
)
@settings(max_examples=40, deadline=None)
def test_sampling_with_prompt_lookup_is_the_same_for_the_same_seed(pair, length, seed, how, options) -> None:
    if "mirostat" in options:  # goes with a temperature alone
        others = ("top_k", "top_p", "min_p", "xtc_probability")
        options = {name: value for name, value in options.items() if name not in others}
    options |= TOLD | {"do_sample": True, "seed": seed, "max_new_tokens": 30}
    same(assisted(pair[0], prompt_of(length, seed), options | how), assisted(pair[0], prompt_of(length, seed), options))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often transformers runs the model."""
    counts, forward = {"model": 0}, MODEL.forward

    @functools.wraps(forward)
    def counted(*arguments, **named):
        counts["model"] += 1
        return forward(*arguments, **named)

    monkeypatch.setattr(MODEL, "forward", counted)
    return counts


@pytest.mark.parametrize("seed", range(20))
def test_prompt_lookup_takes_transformers_passes(pair, passes, seed: int) -> None:
    random = np.random.default_rng(seed)
    prompt, eos = prompt_of(int(random.integers(2, 30)), seed), [None, EOS][seed % 2]
    options = {
        "max_new_tokens": int(random.integers(1, 35)),
        "prompt_lookup_num_tokens": int(random.integers(1, 12)),
        "max_matching_ngram_size": int(random.integers(1, 4)),
    }
    rules = [
        {},
        {"no_repeat_ngram_size": 3},
        {"bad_words_ids": [[7], [8, 9]]},
        {"repetition_penalty": 1.3},
        {"suppress_tokens": [1, 2, 5]},
    ][seed % 5]
    theirs = reference_generate(MODEL, [prompt], eos_token_id=eos, **options, **rules)
    found = assisted(pair[0], prompt, options | rules, eos)
    assert found.ids == new_ids(theirs, [prompt], eos)[0]
    np.testing.assert_allclose(
        [row.max() for row in assisted(pair[0], prompt, options | rules | TOLD, eos).scores],
        [row[0].max().item() for row in theirs.scores][: len(found.ids)],
        atol=1e-4,
    )
    assert found.assistance is not None
    assert found.assistance.passes == passes["model"]


@pytest.mark.parametrize("seed", range(20))
def test_a_draft_gives_transformers_tokens(pair, seed: int) -> None:
    random = np.random.default_rng(seed)
    prompt, eos = prompt_of(int(random.integers(1, 30)), seed), [None, EOS][seed % 2]
    options = {"max_new_tokens": int(random.integers(1, 35))}
    options |= [{}, {"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 3}][seed % 3]
    theirs = reference_generate(MODEL, [prompt], seed, eos_token_id=eos, assistant_model=SMALLER, **options)
    found = assisted(pair[0], prompt, options | {"assistant_model": pair[1].start}, eos)
    assert found.ids == new_ids(theirs, [prompt], eos)[0]


class Table:
    """A model whose next token depends on the last one alone, by a table of logits."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.V = table, len(table)

    def feed_all(self, ids):
        return [self.table[list(row)] for row in ids]

    def feed(self, ids):
        return np.stack([self.table[row[-1]] for row in ids])

    def rewind(self, counts):
        pass

    def reorder(self, rows):
        pass


@pytest.mark.parametrize("how", ["near draft", "stranger", "lookup"])
def test_sampling_has_the_exact_distribution(how: str) -> None:
    # Three tokens of a vocabulary of 3: 27 texts whose probabilities are known exactly.
    random = np.random.default_rng(3)
    table = random.normal(0, 1, (3, 3)).astype(np.float32)
    drafts = {"near draft": table + random.normal(0, 0.3, (3, 3)), "stranger": random.normal(0, 1.5, (3, 3))}
    prompt, n = [0, 1, 2, 0, 1], 8000
    expected = {}
    p = softmax(table.astype(np.float64))
    for first, second, third in itertools.product(range(3), repeat=3):
        expected[first, second, third] = p[1, first] * p[first, second] * p[second, third]
    helped: dict = {"prompt_lookup_num_tokens": 3}
    if how in drafts:
        draft = drafts[how].astype(np.float32)
        helped = {
            "assistant_model": lambda: Table(draft),
            "num_assistant_tokens": 2,
            "assistant_confidence_threshold": 0.35,
        }
    options = Options(do_sample=True, max_new_tokens=3, num_return_sequences=n, seed=11, **helped)
    counts = dict.fromkeys(expected, 0)
    accepted = proposed = 0
    for one in generate(Table(table), [prompt], options):
        counts[tuple(one.ids)] += 1
        accepted, proposed = accepted + one.assistance.accepted, proposed + one.assistance.proposed
    assert 0.05 < accepted / proposed < 0.98
    observed, hoped = np.array(list(counts.values())), n * np.array(list(expected.values()))
    assert stats.chisquare(observed, hoped).pvalue > 1e-3
    one_percent_off = hoped.copy()
    one_percent_off[[hoped.argmax(), hoped.argmin()]] += np.array([-0.01, 0.01]) * n
    assert stats.chisquare(observed, one_percent_off).pvalue < 1e-3


def test_uniform_numbers_are_torch_s() -> None:
    for seed in (0, 7, 2**32 - 1):
        torch.manual_seed(seed)
        ours = CPU(seed)
        for n in (1, 5, 17, 300):
            np.testing.assert_array_equal(ours.uniform(n), torch.rand(n).numpy())
            np.testing.assert_array_equal(ours.exponential(1, 9, np.arange(9)), torch.empty(9).exponential_().numpy())
    u = CUDA(3).uniform(20000)
    assert 0 <= u.min() < u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def test_several_texts_come_one_after_the_other_as_alone(pair) -> None:
    model, prompts = pair[0], [prompt_of(9, 1), prompt_of(3, 2), prompt_of(20, 3)]
    options = Options(prompt_lookup_num_tokens=5, max_new_tokens=20, eos_token_id=EOS)
    together = generate(model.start(), prompts, options, context=64)
    for prompt, one in zip(prompts, together, strict=True):
        alone = generate(model.start(), [prompt], options, context=64)[0]
        assert (one.ids, one.logprobs, one.assistance) == (alone.ids, alone.logprobs, alone.assistance)


def test_text_streams_and_stops_as_without(pair) -> None:
    model = GPT2.from_pretrained()
    prompt, options = "The old king had a son, and the old king said to his son", {"max_new_tokens": 60}
    options["stop_strings"] = model.generate(prompt, **options).text[-25:-15]
    for how in ({"prompt_lookup_num_tokens": 8}, {"assistant_model": "tales"}, {"assistant_model": model}):
        alone, helped = model.generate(prompt, **options), model.generate(prompt, **options, **how)
        assert (helped.text, helped.logprobs, helped.finish_reason) == (alone.text, alone.logprobs, "stop")
        assert helped.assistance.passes < len(alone.ids)
        assert alone.assistance is None
        assert "".join(model.stream(prompt, **options, **how)) == alone.text
    tokens = list(stream(pair[0].start(), [[4, 5, 4]], Options(prompt_lookup_num_tokens=3, max_new_tokens=9)))
    assert [token.assistance is None for token in tokens] == [True] * 8 + [False]
    own = model.generate(prompt, max_new_tokens=20, assistant_model=model).assistance
    assert own.accepted == own.proposed  # the model's own draft is always right


def test_a_full_context_ends_it_as_without_and_a_draft_of_a_shorter_one_falls_silent(pair) -> None:
    model, draft = pair
    prompt = prompt_of(50, 4)
    plain = assisted(model, prompt, {"max_new_tokens": 60}, None)
    assert len(plain.ids) == 15
    for how in (
        {"prompt_lookup_num_tokens": 20},
        {"assistant_model": draft.start},
        {"assistant_model": lambda: draft.start(capacity=55)},
    ):
        found = assisted(model, prompt, {"max_new_tokens": 60} | how, None)
        assert (found.ids, found.logprobs) == (plain.ids, plain.logprobs)
    short = {"assistant_model": lambda: draft.start(capacity=20)}
    assert assisted(model, prompt, {"max_new_tokens": 60} | short, None).assistance == Assistance(15, 0, 0, 0)


class Forgetless:
    """A stepper that can't take anything back."""

    def feed(self, ids):
        return np.zeros((len(ids), 5), np.float32)

    def reorder(self, rows):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens must be a whole number of at least 1, got 0"),
        ({"max_matching_ngram_size": 2}, "max_matching_ngram_size needs prompt_lookup_num_tokens"),
        ({"num_assistant_tokens": 2}, "num_assistant_tokens needs one of assistant_model, assistant_early_exit"),
        ({"prompt_lookup_num_tokens": 2, "num_beams": 2}, "prompt_lookup_num_tokens can't be combined with num_beams"),
        ({"prompt_lookup_num_tokens": 2, "penalty_alpha": 0.5, "top_k": 4}, "can't be combined with penalty_alpha"),
        ({"prompt_lookup_num_tokens": 2, "dola_layers": "low"}, "can't be combined with dola_layers"),
        ({"prompt_lookup_num_tokens": 2, "exhaustive": True}, "can't be combined with exhaustive"),
        ({"prompt_lookup_num_tokens": 2, "assistant_model": Forgetless}, "can't be combined with prompt_lookup"),
        ({"assistant_model": Forgetless, "uniforms": [0.5], "do_sample": True}, "can't be combined with uniforms"),
        ({"assistant_model": 5}, "assistant_model must be what makes a stepper, got 5"),
        ({"assistant_model": Forgetless, "assistant_confidence_threshold": 2}, r"must be in \[0, 1\], got 2"),
        ({"assistant_model": Forgetless, "num_assistant_tokens_schedule": "x"}, "must be 'constant', 'heuristic' or"),
    ],
)
def test_what_can_t_be_is_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_models_that_don_t_fit_are_refused(pair) -> None:
    with pytest.raises(ValueError, match=r"a stepper that can take ids back .* got 'Forgetless'"):
        generate(Forgetless(), [[1]], Options(prompt_lookup_num_tokens=2))
    with pytest.raises(ValueError, match=r"assistant_model must have the model's vocabulary \(23\), got 5"):
        generate(pair[0].start(), [[1]], Options(assistant_model=Forgetless))
    with pytest.raises(ValueError, match=r"have the model's vocabulary \(4096 ids\), got one of 23"):
        GPT2.from_pretrained().generate("One day", assistant_model=pair[1])


@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(5))
def test_sampled_tokens_under_a_draft_are_transformers(pair, seed: int, threshold: float) -> None:
    prompt = prompt_of(6, seed)
    config = SMALLER.generation_config
    kept = (config.eos_token_id, config.pad_token_id)
    config.num_assistant_tokens, config.num_assistant_tokens_schedule = 4, "constant"
    config.assistant_confidence_threshold = threshold
    # An id that never occurs: transformers takes whatever it pads with for padding, in a draft's text too.
    config.eos_token_id, config.pad_token_id = None, 1000
    try:
        theirs = reference_generate(
            MODEL, [prompt], seed, assistant_model=SMALLER, do_sample=True, max_new_tokens=20, pad_token_id=1000
        )
    finally:
        config.eos_token_id, config.pad_token_id = kept
    drafts = {"assistant_model": pair[1].start, "num_assistant_tokens": 4, "assistant_confidence_threshold": threshold}
    ours = assisted(pair[0], prompt, {"do_sample": True, "seed": seed, "max_new_tokens": 20} | drafts, eos=None)
    assert ours.ids == new_ids(theirs, [prompt])[0]


@pytest.mark.parametrize("seed", range(4))
def test_sampled_tokens_under_look_up_are_transformers(pair, seed: int) -> None:
    prompt = [1 + token % 4 for token in prompt_of(6, seed)] * 3
    theirs = reference_generate(
        MODEL, [prompt], seed, prompt_lookup_num_tokens=4, do_sample=True, temperature=0.7, max_new_tokens=20
    )
    lookup = {"prompt_lookup_num_tokens": 4, "prompt_lookup_draws": "transformers", "temperature": 0.7}
    ours = assisted(pair[0], prompt, {"do_sample": True, "seed": seed, "max_new_tokens": 20} | lookup, eos=None)
    assert ours.ids == new_ids(theirs, [prompt])[0]
    assert ours.assistance.proposed > ours.assistance.accepted > 0
