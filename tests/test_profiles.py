"""Orders and profiles: what another engine keeps, from its own functions; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process as theirs

from decoders import Options, methods
from decoders.generate import chain
from decoders.processors import pipeline

GOLDEN = Path(__file__).parent / "golden"
LLAMA_CPP = json.loads((GOLDEN / "llama_cpp.json").read_text())
MLX_LM = json.loads((GOLDEN / "mlx_lm.json").read_text())
PENALTIES = methods.option("penalty_last_n").needs


def process(row: list[float], text: list[int] = [0], **options) -> np.ndarray:  # noqa: B006
    """What options make of one row of scores."""
    processors = chain(Options(**options), 0, len(text), len(text) + 50)
    return pipeline.apply(processors, [np.array(text)], np.array([row], np.float32))[0]


def left(row: np.ndarray) -> list[int]:
    return np.flatnonzero(row > -np.inf).tolist()


def test_llama_cpp_s_chain() -> None:
    for case in LLAMA_CPP["chains"]:
        setting = {name: value for name, value in case["setting"].items() if value > 0}
        setting["top_k"] = int(setting["top_k"])
        row = process(LLAMA_CPP["rows"][case["row"]], profile="llama.cpp", do_sample=True, **setting)
        assert left(row) == case["ids"]
        np.testing.assert_allclose(row[case["ids"]], case["scores"], rtol=1e-5)


def test_llama_cpp_s_penalties() -> None:
    for case in LLAMA_CPP["penalties"]:
        last_n, repeat, presence, frequency = case["setting"]
        row = process(
            LLAMA_CPP["rows"][case["row"]],
            case["text"],
            profile="llama.cpp",
            penalty_last_n=int(last_n),
            repetition_penalty=repeat,
            presence_penalty=presence,
            frequency_penalty=frequency,
        )
        np.testing.assert_allclose(row, case["scores"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "xtc"])
def test_what_mlx_lm_keeps(name: str) -> None:
    for case in MLX_LM["simple"]:
        if case["sampler"] == name:
            xtc = {"xtc_probability": 1.0, "xtc_threshold": case["setting"]}
            option = xtc if name == "xtc" else {name: case["setting"]}
            row = MLX_LM["rows"][case["row"]]
            mine = process(row, profile="mlx-lm", do_sample=True, seed=0, **option)
            tied = np.array(row)[sorted(set(left(mine)) ^ set(case["ids"]))]  # which of equals stay is open
            assert len(left(mine)) == len(case["ids"])
            assert len(set(tied.tolist())) <= 1, case


def test_mlx_lm_s_chain() -> None:
    for case in MLX_LM["chains"]:
        row = MLX_LM["rows"][case["row"]]
        mine = process(row, profile="mlx-lm", do_sample=True, seed=0, xtc_probability=1.0, **case["setting"])
        if len(set(row)) == len(row):
            assert left(mine) == case["ids"]
        np.testing.assert_allclose(np.sort(mine[left(mine)]), np.sort(case["scores"]), rtol=1e-5)


def test_mlx_lm_s_penalties_look_back_twenty_ids() -> None:
    for case in MLX_LM["penalties"]:
        names = {name: case[name] for name in PENALTIES if case[name] is not None}
        row = process(MLX_LM["rows"][case["row"]], case["text"], profile="mlx-lm", **names)
        np.testing.assert_allclose(row, case["scores"], rtol=1e-5, atol=1e-6)


def test_ctranslate2_cuts_to_k_before_the_temperature_and_to_p_after_it() -> None:
    row = np.log([0.1, 0.2, 0.3, 0.4]).tolist()
    # Among the best three p is (.222, .333, .444); at temperature .5 it is (.138, .310, .552).
    settings = {"profile": "ctranslate2", "do_sample": True, "top_k": 3, "temperature": 0.5}
    assert left(process(row, **settings, top_p=0.5)) == [3]
    assert left(process(row, **settings, top_p=0.6)) == [2, 3]
    assert left(process([1.0, 1.0, 1.0], profile="ctranslate2", do_sample=True)) == [0]  # top_k is 1 there


def test_a_profile_fills_in_its_engine_s_defaults() -> None:
    llama = Options(profile="llama.cpp", do_sample=True)
    assert (llama.top_k, llama.top_p, llama.min_p, llama.temperature) == (40, 0.95, 0.05, 0.8)
    assert llama.penalty_last_n is None
    assert Options(profile="llama.cpp", do_sample=True, top_k=5).top_k == 5
    assert Options(profile="llama.cpp", repetition_penalty=1.1).penalty_last_n == 64
    assert Options(profile="mlx-lm", presence_penalty=1.0).penalty_last_n == 20
    assert Options(profile="llama.cpp", do_sample=True, mirostat=2).top_k is None
    assert Options(profile="llama.cpp").temperature is None  # greedy


ORDERABLE = {
    "temperature": (0.4, theirs.TemperatureLogitsWarper),
    "top_k": (3, theirs.TopKLogitsWarper),
    "top_p": (0.7, theirs.TopPLogitsWarper),
    "min_p": (0.3, theirs.MinPLogitsWarper),
    "repetition_penalty": (1.7, theirs.RepetitionPenaltyLogitsProcessor),
}


@given(order=st.permutations(list(ORDERABLE)), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_any_order(order: list[str], seed: int) -> None:
    row = np.random.default_rng(seed).standard_normal(12).astype(np.float32) * 2
    mine = process(row.tolist(), [1, 2], do_sample=True, order=order, **{name: ORDERABLE[name][0] for name in order})
    expected = torch.tensor(row)[None]
    for name in order:
        value, build = ORDERABLE[name]
        expected = build(value)(torch.tensor([[1, 2]]), expected)
    np.testing.assert_allclose(mine, expected[0].numpy(), rtol=1e-5)


def test_order_matters() -> None:
    row = np.log([0.1, 0.2, 0.3, 0.4]).tolist()
    both = {"do_sample": True, "temperature": 0.2, "top_p": 0.6}
    assert left(process(row, **both)) == [3]
    assert left(process(row, **both, order=["top_p", "temperature"])) == [2, 3]


def test_what_an_order_does_not_name_keeps_its_place() -> None:
    options = Options(
        do_sample=True,
        temperature=0.5,
        top_k=3,
        repetition_penalty=1.1,
        no_repeat_ngram_size=2,
        renormalize_logits=True,
        order=["top_k", "repetition_penalty", "temperature"],
    )
    names = [named.option for named in chain(options, 0, 1, 9)]
    assert names == ["no_repeat_ngram_size", "top_k", "repetition_penalty", "temperature", "renormalize_logits"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "tgi"}, "profile must be one of llama.cpp, ctranslate2, mlx-lm, vllm, .*, got 'tgi'"),
        (
            {"profile": "llama.cpp", "do_sample": True, "eta_cutoff": 0.1},
            "profile 'llama.cpp' has no eta_cutoff; leave one of the two out",
        ),
        ({"profile": "mlx-lm", "no_repeat_ngram_size": 2}, "profile 'mlx-lm' has no no_repeat_ngram_size; .*"),
        ({"profile": "mlx-lm", "do_sample": True, "dynatemp_range": 0.5}, "profile 'mlx-lm' has no dynatemp_range; .*"),
        ({"profile": "ctranslate2", "num_beams": 3}, "profile 'ctranslate2' is about sampling; leave num_beams out"),
        (
            {"profile": "llama.cpp", "do_sample": True, "mirostat": 2, "repetition_penalty": 1.5},
            "mirostat in llama.cpp can't be combined with repetition_penalty, got 1.5",
        ),
        ({"do_sample": True, "mirostat": 3}, "mirostat must be 1 or 2, got 3"),
        ({"do_sample": True, "mirostat": 2, "top_p": 0.5}, "mirostat can't be combined with top_p, got 0.5"),
        ({"mirostat": 2}, "mirostat acts only when sampling; give do_sample too, or leave mirostat out"),
        (
            {"do_sample": True, "top_k": 3, "order": ["top_p"]},
            "order must name every sampler in use \\(top_k is missing\\), got \\['top_p'\\]",
        ),
        ({"do_sample": True, "dynatemp_range": 0.3, "order": ["top_p"]}, "order must .*temperature is missing.*"),
        ({"order": ["topk"]}, "order may name guidance_scale, .*, got 'topk'"),
        ({"order": ["top_k", "top_k"]}, "order must name nothing twice, got 'top_k'"),
        ({"order": "top_k"}, "order must be a list of names, got 'top_k'"),
        ({"order": []}, "order must not be empty, got \\[\\]"),
        ({"do_sample": True, "xtc_threshold": 0.3}, "xtc_threshold needs xtc_probability; give it too, or .*"),
        ({"dry_base": 2.0}, "dry_base needs dry_multiplier; give it too, or leave dry_base out"),
        ({"penalty_last_n": 4}, "penalty_last_n needs one of repetition_penalty, .*; or leave it out"),
        ({"do_sample": True, "min_tokens_to_keep": 4}, "min_tokens_to_keep needs a sampler that removes tokens; or .*"),
        (
            {"profile": "mlx-lm", "do_sample": True, "top_p": 0.5, "min_tokens_to_keep": 3},
            "min_tokens_to_keep needs a sampler that removes tokens and heeds it in profile 'mlx-lm'; or leave it out",
        ),
        (
            {"profile": "mlx-lm", "do_sample": True, "xtc_probability": 0.5, "xtc_threshold": 0.8},
            "xtc_threshold must be in \\[0, 0.5\\], got 0.8",
        ),
        ({"seed": 5}, "seed acts only when sampling; give do_sample too, or leave seed out"),
        ({"rng": "cuda"}, "rng acts only when sampling; give do_sample too, or leave rng out"),
        ({"uniforms": [0.5]}, "uniforms acts only when sampling; .*"),
        (
            {"cuda_multiprocessors": 5},
            "cuda_multiprocessors acts only when sampling; give do_sample too, or leave cuda_multiprocessors out",
        ),
        (
            {"do_sample": True, "cuda_multiprocessors": 5},
            "cuda_multiprocessors needs rng='cuda'; give it too, or leave cuda_multiprocessors out",
        ),
        ({"do_sample": True, "uniforms": [0.5], "seed": 1}, "uniforms are the draws themselves; leave seed out"),
        ({"do_sample": True, "uniforms": [0.5], "rng": "cuda"}, "uniforms are the draws themselves; leave rng out"),
        ({"do_sample": True, "top_n_sigma": 0}, "top_n_sigma must be above 0, got 0"),
        ({"do_sample": True, "xtc_probability": 1.5}, "xtc_probability must be in \\[0, 1\\], got 1.5"),
        ({"dry_multiplier": 1.0, "dry_base": 0.5}, "dry_base must be at least 1, got 0.5"),
        ({"dry_multiplier": 1.0, "dry_sequence_breakers": [[]]}, "dry_sequence_breakers must not be empty, got .*"),
    ],
)
def test_what_cannot_be_is_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Options(**options)


def test_what_a_profile_heeds_is_accepted() -> None:
    kept = Options(profile="mlx-lm", do_sample=True, min_p=0.5, min_tokens_to_keep=3)
    assert [named.processor.min_tokens_to_keep for named in chain(kept, 0, 1, 9) if named.option == "min_p"] == [3]
    assert Options(profile="mlx-lm", do_sample=True, xtc_probability=0.5, xtc_threshold=0.5).xtc_threshold == 0.5
    assert Options(do_sample=True, xtc_probability=0.5, xtc_threshold=0.8).xtc_threshold == 0.8  # as llama.cpp takes it
    # XTC's coins are no draws of tokens: a seed is for them.
    assert Options(do_sample=True, uniforms=[0.5], xtc_probability=0.5, seed=1).seed == 1


def test_ids_outside_the_vocabulary() -> None:
    for options in (
        {"dry_multiplier": 1.0, "dry_sequence_breakers": [[99]]},
        {"guidance_scale": 2.0, "negative_prompt_ids": [99], "unconditional": object},
        {"guidance_scale": 2.0, "negative_prompt_ids": [[1], [99]], "unconditional": object},
    ):
        with pytest.raises(ValueError, match="must hold ids between 0 and 9, got 99"):
            Options(**options).check_vocabulary(10)
