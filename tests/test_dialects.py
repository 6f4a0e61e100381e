"""vLLM's, ExLlamaV3's and KoboldCpp's chains, each computed as its source has it; and where engines part."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import Options
from decoders.generate import chain
from decoders.processors import pipeline

ROOT = Path(__file__).parent.parent
PROMPT, NEW = [0, 1, 2, 2], [3, 2, 4, 4]
ROWS = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).standard_normal(12).astype(np.float32) * 2)
SETTINGS: dict[str, Any] = {
    "temperature": st.sampled_from([0.3, 0.8, 1.5]),
    "top_k": st.integers(1, 11),
    "top_p": st.floats(0.05, 0.99),
    "min_p": st.floats(0.01, 0.6),
    "repetition_penalty": st.floats(0.6, 2.0),
    "presence_penalty": st.floats(-1.0, 1.0),
}
FREQUENCY = {"frequency_penalty": st.floats(-1.0, 1.0)}


def ours(profile: str, row: np.ndarray, settings_of: dict[str, Any]) -> np.ndarray:
    options = Options(profile=profile, do_sample=True, **settings_of)
    processors = chain(options, 0, len(PROMPT), 50)
    return pipeline.apply(processors, [np.array(PROMPT + NEW)], row[None])[0]


def same(found: np.ndarray, expected: torch.Tensor) -> None:
    """The same tokens are left, by the same shares: engines keep logits or probabilities."""
    kept = np.isfinite(found)
    np.testing.assert_array_equal(kept, torch.isfinite(expected).numpy())
    p = torch.softmax(torch.tensor(found), -1).numpy()
    np.testing.assert_allclose(p, torch.softmax(expected, -1).numpy(), rtol=1e-4, atol=1e-6)


def counted(ids: list[int], V: int = 12) -> torch.Tensor:
    return torch.bincount(torch.tensor(ids, dtype=torch.long), minlength=V)


def repeated(x: torch.Tensor, mask: torch.Tensor, penalty: float) -> torch.Tensor:
    return torch.where(mask, torch.where(x > 0, x / penalty, x * penalty), x)


def vllm(row: np.ndarray, o: dict[str, Any]) -> torch.Tensor:
    """`Sampler.apply_logits_processors`, then `sample`."""
    x = torch.tensor(row)
    x = repeated(x, counted(PROMPT + NEW) > 0, o.get("repetition_penalty", 1.0))
    x = x - o.get("frequency_penalty", 0.0) * counted(NEW) - o.get("presence_penalty", 0.0) * (counted(NEW) > 0)
    x = x / o.get("temperature", 1.0)
    if "min_p" in o:
        p = x.softmax(-1)
        x = x.masked_fill(p < o["min_p"] * p.max(), -np.inf)
    ordered, places = x.sort()
    if "top_k" in o:
        ordered = ordered.masked_fill(ordered < ordered[len(x) - o["top_k"]], -np.inf)
    if "top_p" in o:
        gone = ordered.softmax(-1).cumsum(-1) <= 1 - o["top_p"]
        gone[-1] = False
        ordered = ordered.masked_fill(gone, -np.inf)
    return x.scatter(0, places, ordered)


def exllamav3(row: np.ndarray, o: dict[str, Any]) -> torch.Tensor:
    """`ComboSampler`, its steps one by one."""
    x = torch.tensor(row)
    x = repeated(x, counted(PROMPT + NEW) > 0, o.get("repetition_penalty", 1.0))
    past = counted(PROMPT + NEW)
    x = x - o.get("frequency_penalty", 0.0) * past - o.get("presence_penalty", 0.0) * (past > 0)
    p = (x / o.get("temperature", 1.0)).softmax(-1)
    if "min_p" in o:
        p = p * (p >= p.max() * o["min_p"])
    p, places = p.sort(descending=True)
    if "top_k" in o:
        p[o["top_k"] :] = 0
    if "top_p" in o:
        p /= p.sum()
        p[1:] *= (p.cumsum(-1) <= o["top_p"])[1:]
    return torch.zeros_like(p).scatter(0, places, p).log()


def koboldcpp(row: np.ndarray, o: dict[str, Any]) -> torch.Tensor:
    """`SampleLogits` in its usual order, on candidates sorted downwards."""
    x = torch.tensor(row)
    recent = counted(PROMPT + NEW) > 0
    x = torch.where(
        recent, torch.where(x <= 0, x * (o.get("repetition_penalty", 1.0)), x / o.get("repetition_penalty", 1.0)), x
    )
    x = x - o.get("presence_penalty", 0.0) * recent
    x, places = x.sort(descending=True)
    x = x[: o.get("top_k", 100)]
    if "top_a" in o:
        p = x.softmax(-1)
        x = x[p >= o["top_a"] * p[0] ** 2]
    if "tfs" in o and len(x) > 2:
        bends = x.softmax(-1).diff().diff().abs()
        bends = bends / bends.sum() if bends.sum() > 1e-6 else torch.full_like(bends, 1 / len(bends))
        beyond = torch.nonzero(bends.cumsum(-1) > o["tfs"]).flatten()
        beyond = beyond[beyond >= 1]
        x = (
            x[: int(beyond[0])]
            if len(beyond)
            else x
            if float(bends.cumsum(-1)[-1]) <= o["tfs"]
            else x[:1]
            if len(bends) == 1
            else x
        )
    reached = torch.nonzero(x.softmax(-1).cumsum(-1) >= o.get("top_p", 0.92)).flatten()
    x = x[: int(reached[0]) + 1] if len(reached) else x
    if "min_p" in o:
        x = x[x >= x[0] + np.log(np.float32(o["min_p"]))]
    x = x / o.get("temperature", 0.7)
    if "smoothing_factor" in o:
        x = -o["smoothing_factor"] * (x - x[0]) ** 2 + x[0]
    return torch.full((12,), -np.inf).scatter(0, places[: len(x)], x)


ENGINES = {"vllm": (vllm, SETTINGS | FREQUENCY), "exllamav3": (exllamav3, SETTINGS | FREQUENCY)}
ENGINES["koboldcpp"] = (
    koboldcpp,
    SETTINGS | {"top_a": st.floats(0.01, 0.9), "tfs": st.floats(0.1, 0.99), "smoothing_factor": st.floats(0.1, 2.0)},
)


@pytest.mark.parametrize("name", ENGINES)
def test_the_chain_is_the_source_s(name: str) -> None:
    reference, values = ENGINES[name]

    @given(row=ROWS, asked=st.fixed_dictionaries({}, optional=values))
    @settings(max_examples=150, deadline=None)
    def compare(row: np.ndarray, asked: dict[str, Any]) -> None:
        same(ours(name, row, asked), reference(row, asked))

    compare()


def left(profile: str | None, row: list[float], **options: Any) -> list[int]:
    asked = Options(do_sample=True, **({} if profile is None else {"profile": profile}), **options)
    out = pipeline.apply(chain(asked, 0, 1, 9), [np.array([0])], np.array([row], np.float32))[0]
    return np.flatnonzero(np.isfinite(out)).tolist()


def test_ties_at_the_cut() -> None:
    row = [1.0, 2.0, 2.0, 2.0]
    assert left("vllm", row, top_k=2) == left("exllamav3", row, top_k=2) == [1, 2, 3]
    assert left("koboldcpp", row, top_k=2, top_p=1.0) == [1, 2]


def test_which_token_crosses_p() -> None:
    row = np.log([0.4, 0.3, 0.2, 0.1]).tolist()
    assert left("vllm", row, top_p=0.6) == left("koboldcpp", row, top_p=0.6, top_k=0) == [0, 1]
    assert left("exllamav3", row, top_p=0.6) == [0]


def test_vllm_s_bad_words_begin_in_the_new_text() -> None:
    row = np.zeros(12, np.float32)
    for profile, gone in (("vllm", []), (None, [7])):
        options = Options(bad_words_ids=[[2, 7]], **({} if profile is None else {"profile": profile}))
        out = pipeline.apply(chain(options, 0, 3, 9), [np.array([0, 1, 2])], row[None])[0]
        assert np.flatnonzero(~np.isfinite(out)).tolist() == gone
    options = Options(bad_words_ids=[[2, 7], [3]], eos_token_id=3, profile="vllm")
    out = pipeline.apply(chain(options, 0, 2, 9), [np.array([0, 1, 2])], row[None])[0]
    assert np.flatnonzero(~np.isfinite(out)).tolist() == [3, 7]


def test_windows_of_penalties() -> None:
    ids, row = [np.array([5, 6, 7, 8])], np.full((1, 12), 2.0, np.float32)
    windows = {"vllm": {}, "exllamav3": {"penalty_last_n": 3}, "koboldcpp": {"penalty_last_n": 3}}
    found = {}
    for profile, window in windows.items():
        options = Options(profile=profile, repetition_penalty=2.0, **window)
        found[profile] = np.flatnonzero(pipeline.apply(chain(options, 0, 2, 9), ids, row)[0] < 2).tolist()
    assert found == {"vllm": [5, 6, 7, 8], "exllamav3": [7, 8], "koboldcpp": [6, 7, 8]}
    assert Options(profile="koboldcpp", repetition_penalty=1.1).penalty_last_n == 320
    found = {}
    for profile in ("vllm", "exllamav3"):
        options = Options(profile=profile, presence_penalty=1.0)
        found[profile] = np.flatnonzero(pipeline.apply(chain(options, 0, 2, 9), ids, row)[0] < 2).tolist()
    assert found == {"vllm": [7, 8], "exllamav3": [5, 6, 7, 8]}


def test_temperatures_and_defaults() -> None:
    row = [0.0, 1.0, 3.0, 2.0]
    for profile in ("vllm", "exllamav3", "koboldcpp"):
        assert left(profile, row, temperature=0.0) == [2]
    assert ours("vllm", np.array([0.0, 1.0, 3.0, 2.0] * 3, np.float32), {"temperature": 0.001}).max() == 300
    assert Options(profile="vllm", do_sample=True).given == {"do_sample", "profile"}
    kobold = Options(profile="koboldcpp", do_sample=True)
    assert (kobold.top_k, kobold.top_p, kobold.temperature) == (100, 0.92, 0.7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "vllm", "temperature": 2.5}, r"temperature must be in \[0, 2\], got 2.5"),
        ({"profile": "vllm", "xtc_probability": 0.5}, "profile 'vllm' has no xtc_probability"),
        ({"profile": "vllm", "repetition_penalty": 1.5, "penalty_last_n": 9}, "profile 'vllm' has no penalty_last_n"),
        ({"profile": "exllamav3", "typical_p": 0.5}, "profile 'exllamav3' has no typical_p"),
        ({"profile": "koboldcpp", "frequency_penalty": 0.5}, "profile 'koboldcpp' has no frequency_penalty"),
    ],
)
def test_what_an_engine_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(do_sample=True, **options)


def test_the_page_shows_where_engines_part() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "build_dialects_page.py"))
    page = (ROOT / "docs" / "decoding" / "dialects.md").read_text(encoding="utf-8")
    assert script["table"]() in page, "run scripts/build_dialects_page.py"
