"""The watermarks and their detectors against transformers' own classes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import TorchStepper, new_ids, random_ids, reference_generate, reference_model
from transformers import GPT2Config
from transformers.generation import SynthIDTextWatermarkingConfig as TheirSynthIDConfig
from transformers.generation import WatermarkDetector as TheirDetector
from transformers.generation import WatermarkingConfig as TheirConfig
from transformers.generation import logits_process as theirs

from decoders import Options, generate
from decoders.processors.synthid import SynthID, SynthIDDetector, SynthIDTextWatermarkingConfig
from decoders.processors.watermark import Watermark, WatermarkDetector, WatermarkingConfig, configured
from decoders.random.torch_rng import randint, randperm

V = 53
MODEL = reference_model(1, vocab_size=V, n_positions=64, n_layer=2)
SCHEMES = st.fixed_dictionaries(
    {
        "greenlist_ratio": st.sampled_from([0.25, 0.5, 0.1]),
        "bias": st.sampled_from([2.0, -1.0, 0.5]),
        "hashing_key": st.sampled_from([15485863, 7, 2**31 - 1]),
        "context_width": st.integers(1, 4),
        "seeding_scheme": st.sampled_from(["lefthash", "selfhash"]),
    }
)
KEYS = (654, 400, 836, 123, 340, 443, 597)


@given(seed=st.integers(0, 2**64 - 2), n=st.integers(1, 300), first=st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_torch_s_permutations(seed: int, n: int, first: int) -> None:
    expected = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_array_equal(randperm(seed, n), expected)
    np.testing.assert_array_equal(randperm(seed, n, first), expected[:first])


def test_torch_s_permutation_of_the_published_vocabulary_and_its_bits() -> None:
    expected = torch.randperm(50257, generator=torch.Generator().manual_seed(5)).numpy()
    np.testing.assert_array_equal(randperm(5, 50257, 12564), expected[:12564])
    expected = torch.randint(0, 2, (2**16,), generator=torch.Generator().manual_seed(5)).numpy()
    np.testing.assert_array_equal(randint(5, 2, 2**16), expected)


@given(names=SCHEMES, length=st.integers(1, 7), rows=st.integers(1, 3), seed=st.integers(0, 999))
@example(  # one row finds none green, the other does
    names={
        "greenlist_ratio": 0.1,
        "bias": 2.0,
        "hashing_key": 15485863,
        "context_width": 3,
        "seeding_scheme": "selfhash",
    },
    length=6,
    rows=2,
    seed=3,
)
@settings(max_examples=40, deadline=None)
def test_the_same_tokens_are_green(names, length: int, rows: int, seed: int) -> None:
    ids = random_ids(rows, length, V, seed)
    scores = np.random.default_rng(seed).standard_normal((rows, V)).astype(np.float32)
    scores[:, seed % V] = -np.inf
    reference = theirs.WatermarkLogitsProcessor(V, "cpu", **names)
    expected = scores.copy()
    for row in range(rows):
        # transformers can't take "selfhash" finding no candidate green: then nothing changes, in that row.
        with contextlib.suppress(IndexError):
            expected[row] = reference(torch.tensor(ids[row : row + 1]), torch.tensor(scores[row : row + 1]))[0]
    np.testing.assert_array_equal(Watermark(WatermarkingConfig(**names))(list(ids), scores), expected)


@pytest.mark.parametrize("sampling", [False, True])
@pytest.mark.parametrize("scheme", ["lefthash", "selfhash"])
def test_marked_texts_are_transformers_and_are_found(scheme: str, sampling: bool) -> None:
    names = {"seeding_scheme": scheme, "bias": 6.0}
    prompts = [random_ids(1, 4, V, seed)[0].tolist() for seed in range(2)]
    reference = reference_generate(
        MODEL, prompts, 3, do_sample=sampling, max_new_tokens=25, watermarking_config=TheirConfig(**names)
    )
    options = Options(do_sample=sampling, seed=3 if sampling else None, max_new_tokens=25, watermarking_config=names)
    ours = generate(TorchStepper(MODEL), prompts, options)
    assert [one.ids for one in ours] == new_ids(reference, prompts)
    detect = WatermarkDetector(configured(names), V)
    assert all(detect(one.ids).prediction for one in ours)
    assert not any(detect(random_ids(1, 25, V, seed)[0].tolist()).prediction for seed in range(20, 30))


@given(
    names=SCHEMES, seed=st.integers(0, 999), length=st.integers(6, 25), once=st.booleans(), bos=st.sampled_from([0, 99])
)
@settings(max_examples=40, deadline=None)
def test_the_detector_s_figures(names, seed: int, length: int, once: bool, bos: int) -> None:
    text = random_ids(1, length, V, seed)
    text[0, 0] = 0
    reference = TheirDetector(GPT2Config(vocab_size=V, bos_token_id=bos), "cpu", TheirConfig(**names), once)
    expected = reference(torch.tensor(text), return_dict=True)
    found = WatermarkDetector(WatermarkingConfig(**names), V, bos, once)(text[0])
    for name in (
        "num_tokens_scored",
        "num_green_tokens",
        "green_fraction",
        "z_score",
        "p_value",
        "prediction",
        "confidence",
    ):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)[0]), name


def test_a_text_too_short_for_the_detector() -> None:
    with pytest.raises(ValueError, match="a watermark needs more than context_width \\(2\\) ids to be seen, got 2"):
        WatermarkDetector(WatermarkingConfig(context_width=2), V)([1, 2])


@given(
    ngram=st.integers(2, 5),
    rounds=st.integers(1, 7),
    history=st.sampled_from([0, 1, 3, 1024]),
    skip=st.booleans(),
    seed=st.integers(0, 999),
    few=st.sampled_from([2, 3, V]),
    rows=st.integers(1, 2),
)
@settings(max_examples=40, deadline=None)
def test_synthid_follows_transformers_step_by_step(ngram, rounds, history, skip, seed, few, rows) -> None:
    names = {
        "ngram_len": ngram,
        "keys": KEYS[:rounds],
        "context_history_size": history,
        "sampling_table_seed": seed,
        "sampling_table_size": 999,
        "skip_first_ngram_calls": skip,
    }
    reference = theirs.SynthIDTextWatermarkLogitsProcessor(device="cpu", **(names | {"keys": list(KEYS[:rounds])}))
    random, ids = np.random.default_rng(seed), random_ids(rows, 3, V, seed)
    ours = SynthID(SynthIDTextWatermarkingConfig(**names), 3)
    for _ in range(12):
        scores = random.standard_normal((rows, V)).astype(np.float32) * 3
        scores[:, random.integers(0, V, 5)] = -np.inf
        expected = reference(torch.tensor(ids), torch.tensor(scores)).numpy()
        mine = ours(list(ids), scores)
        np.testing.assert_array_equal(mine[scores == -np.inf], expected[scores == -np.inf])
        np.testing.assert_allclose(np.exp(mine), np.exp(expected), rtol=1e-4, atol=1e-6)
        ids = np.concatenate([ids, random.integers(0, few, (rows, 1))], axis=1)


def test_synthid_samples_what_transformers_samples() -> None:
    prompts = [random_ids(1, 4, V, seed)[0].tolist() for seed in range(3)]
    names = {"ngram_len": 4, "keys": list(KEYS)}
    reference = reference_generate(
        MODEL, prompts, 3, do_sample=True, top_k=20, max_new_tokens=25, watermarking_config=TheirSynthIDConfig(**names)
    )
    options = Options(do_sample=True, seed=3, top_k=20, max_new_tokens=25, watermarking_config=names)
    ours = generate(TorchStepper(MODEL), prompts, options)
    assert [one.ids for one in ours] == new_ids(reference, prompts)


@given(
    seed=st.integers(0, 999), few=st.sampled_from([2, V]), ngram=st.integers(2, 5), history=st.sampled_from([1, 1024])
)
@settings(max_examples=40, deadline=None)
def test_synthid_s_scores(seed: int, few: int, ngram: int, history: int) -> None:
    text = random_ids(1, 24, few, seed)
    config = SynthIDTextWatermarkingConfig(ngram, KEYS, history)
    reference = theirs.SynthIDTextWatermarkLogitsProcessor(ngram, list(KEYS), 2**16, 0, history, "cpu")
    g = reference.compute_g_values(torch.tensor(text)).numpy()[0]
    counts = (
        reference.compute_context_repetition_mask(torch.tensor(text))
        * reference.compute_eos_token_mask(torch.tensor(text), 1)[:, ngram - 1 :]
    )
    detector, mask = SynthIDDetector(config, eos_token_id=1), counts.numpy()[0].astype(bool)
    np.testing.assert_array_equal(detector.g_values(text[0].tolist()), g)
    np.testing.assert_array_equal(detector.mask(text[0].tolist()), mask)
    if mask.any():
        weights = np.linspace(10, 1, len(KEYS)) * len(KEYS) / np.linspace(10, 1, len(KEYS)).sum()
        assert detector.mean_score(text[0].tolist()) == pytest.approx(g[mask].mean())
        assert detector.weighted_mean_score(text[0].tolist()) == pytest.approx((g * weights)[mask].mean())
    else:
        assert np.isnan(detector.mean_score(text[0].tolist()))


def test_synthid_is_found_by_its_scores() -> None:
    names = {"ngram_len": 5, "keys": tuple(range(100, 130))}
    detector = SynthIDDetector(SynthIDTextWatermarkingConfig(**names))

    def score(**options) -> float:
        text = generate(TorchStepper(MODEL), [[1, 2]], Options(do_sample=True, seed=0, max_new_tokens=60, **options))
        return detector.mean_score(text[0].ids)

    assert score(watermarking_config=names) > 0.53 > 0.52 > score()


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"greenlist_ratio": 1.5}, "greenlist_ratio must be in \\(0, 1\\), got 1.5"),
        ({"seeding_scheme": "x"}, "seeding_scheme must be 'lefthash' or 'selfhash', got 'x'"),
        ({"context_width": 0}, "context_width must be at least 1, got 0"),
        ({"ratio": 0.5}, "watermarking_config may hold greenlist_ratio, bias, .*, got 'ratio'"),
        ({"keys": [1]}, "watermarking_config must hold ngram_len beside keys, got .*"),
        ({"keys": [1], "ngram_len": 1}, "ngram_len must be at least 2, got 1"),
        ({"keys": [], "ngram_len": 3}, "keys must hold at least one key, got \\(\\)"),
        (3, "watermarking_config must be a configuration or a mapping, got 3"),
    ],
)
def test_settings_that_cannot_be(given_settings, message: str) -> None:
    with pytest.raises(ValueError, match=f"^(watermarking_config: )?{message}$"):
        Options(watermarking_config=given_settings)
