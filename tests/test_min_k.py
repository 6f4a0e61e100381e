"""Min-k against its paper's definition, computed by torch in the plainest way, and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_processors import scores

from decoders import Options
from decoders.generate import chain
from decoders.processors import pipeline
from decoders.processors.min_k import MinK

NEVER = -np.inf


def plain(values: torch.Tensor, tau: float) -> torch.Tensor:
    """Which stay: sorted, each drop as a share of the range and of its place, the steepest; at least ⌊τ / range⌋."""
    ordered = values[values > NEVER].sort(descending=True).values
    reach = ordered[0] - ordered[-1]
    if reach == 0:
        return values > NEVER
    drops = (ordered[:-1] - ordered[1:]) / reach / torch.arange(1, len(ordered), dtype=values.dtype)
    k = max(int(drops.argmax()) + 1, min(int(torch.floor(tau / reach)), len(ordered)))
    return values >= ordered[k - 1]


@given(values=scores(1), tau=st.sampled_from([0.0, 1.0, 3.0, 10.0, 100.0]))
@settings(max_examples=200, deadline=None)
def test_what_stays_is_the_paper_s(values: np.ndarray, tau: float) -> None:
    expected = plain(torch.tensor(values[0]), tau).numpy()
    np.testing.assert_array_equal(MinK(tau)([], values)[0] > NEVER, expected)


@pytest.mark.parametrize("spread", [0.2, 1.0, 6.0])
def test_what_stays_at_the_published_vocabulary(spread: float) -> None:
    random = np.random.default_rng(0)
    for tail in (0, 400):
        values = random.standard_normal((2, 50257), np.float32) * np.float32(spread)
        values[:, :tail] += random.exponential(3, (2, tail)).astype(np.float32)
        for tau in (3.0, 5000.0):
            expected = [plain(torch.tensor(row), tau).numpy() for row in values]
            np.testing.assert_array_equal(MinK(tau)([], values) > NEVER, expected)


@pytest.mark.parametrize(
    ("values", "tau", "left"),
    [
        # Shares of the range by place: 1/10 ÷ 1, 6/10 ÷ 2, 3/10 ÷ 3.
        ([10.0, 9.0, 3.0, 0.0], 3.0, 2),
        # An early drop counts more than a later one as deep: 4/9 ÷ 1, 1/9 ÷ 2, 4/9 ÷ 3.
        ([9.0, 5.0, 4.0, 0.0], 3.0, 1),
        # All within 1: ⌊3 / 1⌋ stay.
        ([1.0, 0.2, 0.1, 0.0], 3.0, 3),
        ([1.0, 0.2, 0.1, 0.0], 0.0, 1),
        ([1.0, 1.0, 1.0, 1.0], 3.0, 4),
        ([2.0, NEVER, 1.9, 0.0], 0.0, 2),
        ([2.0, NEVER, NEVER, NEVER], 3.0, 1),
    ],
)
def test_four_tokens(values: list[float], tau: float, left: int) -> None:
    kept = MinK(tau)([], np.array([values], np.float32))[0]
    assert np.flatnonzero(kept > NEVER).tolist() == sorted(np.argsort(-np.array(values), kind="stable")[:left].tolist())


@given(values=scores(1), temperature=st.sampled_from([0.25, 0.5, 2.0, 8.0]))
@settings(max_examples=100, deadline=None)
def test_the_drop_does_not_depend_on_a_temperature(values: np.ndarray, temperature: float) -> None:
    one, other = (MinK(0.0)([], row) > NEVER for row in (values, values / np.float32(temperature)))
    np.testing.assert_array_equal(one, other)


def test_it_acts_before_a_temperature_and_as_options_say() -> None:
    options = Options(do_sample=True, min_k=True, temperature=0.5, min_tokens_to_keep=3)
    processors = chain(options, 0, 1, 9)
    assert [one.option for one in processors] == ["min_k", "temperature"]
    out = pipeline.apply(processors, [np.array([0])], np.array([[9.0, 5.0, 4.0, 0.0]], np.float32))
    assert out.tolist() == [[18.0, 10.0, 8.0, NEVER]]
    for wrong, message in [
        ({"min_k": True}, "min_k acts only when sampling"),
        ({"do_sample": True, "min_k_tau": 2.0}, "min_k_tau needs min_k; give it too"),
        ({"do_sample": True, "min_k": True, "min_k_tau": -1.0}, "min_k_tau must be at least 0, got -1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Options(**wrong)
