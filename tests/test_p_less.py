"""p-less: tables by hand from the paper's definition, torch on random rows, and what it is as an option."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import Options
from decoders.generate import chain
from decoders.processors.p_less import p_less, p_less_norm
from decoders.processors.pipeline import apply


def kept(function, p: list[float], **settings: int) -> list[int]:
    with np.errstate(divide="ignore"):
        scores = np.log(np.array([p], np.float32))
    return np.flatnonzero(function([], scores, **settings)[0] > -np.inf).tolist()


# Of each distribution: the tokens of at least Σ p², and those of at least (4 · Σ p² − 1) / 3.
@pytest.mark.parametrize(
    ("p", "plain", "norm"),
    [
        ([0.4, 0.3, 0.2, 0.1], [0, 1], [0, 1, 2, 3]),  # 0.30 and 0.0667
        ([0.7, 0.1, 0.1, 0.1], [0], [0]),  # 0.52 and 0.36
        ([0.5, 0.5, 0.0, 0.0], [0, 1], [0, 1]),  # 0.50 and 0.3333
        ([0.25, 0.25, 0.25, 0.25], [0, 1, 2, 3], [0, 1, 2, 3]),  # 0.25 and 0
        ([1.0, 0.0, 0.0, 0.0], [0], [0]),  # 1 and 1
    ],
)
def test_the_paper_s_definition(p: list[float], plain: list[int], norm: list[int]) -> None:
    assert kept(p_less, p) == plain
    assert kept(p_less_norm, p) == norm


@given(seed=st.integers(0, 9999), V=st.integers(1, 60), scale=st.floats(0.01, 9))
@settings(max_examples=150)
def test_torch_says_the_same(seed: int, V: int, scale: float) -> None:
    scores = (np.random.default_rng(seed).standard_normal((3, V)) * scale).astype(np.float32)
    p = torch.tensor(scores).double().softmax(-1)
    agree = p.square().sum(-1, keepdim=True)
    for function, threshold in ((p_less, agree), (p_less_norm, (V * agree - 1) / max(V - 1, 1))):
        out = function([], scores)
        near = ((p - threshold).abs() < 1e-6 * p.clamp(min=1e-6)).numpy()  # what float32 can't tell apart
        np.testing.assert_array_equal((out > -np.inf) | near, (p >= threshold).numpy() | near)
        assert (out > -np.inf).any(axis=-1).all()
        np.testing.assert_array_equal(out[out > -np.inf], scores[out > -np.inf])


@pytest.mark.parametrize("V", [3, 7, 4096, 50257])
def test_among_equals_all_stay(V: int) -> None:
    assert (p_less([], np.zeros((1, V), np.float32)) == 0).all()
    assert (p_less_norm([], np.zeros((1, V), np.float32)) == 0).all()


def test_it_acts_after_the_temperature_and_spares_what_must_stay() -> None:
    row = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))

    def left(**options) -> int:
        asked = Options(do_sample=True, **options)
        return int((apply(chain(asked, 0, 1, 9), [np.array([0])], row) > -np.inf).sum())

    assert left(p_less=True) == 2
    assert left(p_less=True, temperature=0.1) == 1
    assert left(p_less=True, min_tokens_to_keep=3) == 3
    assert left(p_less_norm=True) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_less": True}, "p_less acts only when sampling; give do_sample too, or leave p_less out"),
        ({"do_sample": True, "p_less": 0.5}, "p_less must be True or False, got 0.5"),
        ({"do_sample": True, "p_less": True, "p_less_norm": True}, "p_less_norm can't be combined with p_less, .*"),
        ({"do_sample": True, "p_less": True, "mirostat": 2}, "mirostat can't be combined with p_less, got True"),
        ({"do_sample": True, "p_less": True, "profile": "llama.cpp"}, "profile 'llama.cpp' has no p_less; .*"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Options(**options)
