"""Stochastic beams: the sample without replacement that exact enumeration says it must be."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from decoders import Options, generate
from decoders.searches.stochastic_beam import Draw, conditioned, estimate

EOS, V = 0, 4
TABLE = np.random.RandomState(3).normal(0, 1.5, (V, V)).astype(np.float32)


class Table:
    """A model whose logits depend on the newest id alone."""

    def feed(self, ids):
        self.newest = [row[-1] for row in ids]
        return TABLE[self.newest]

    def reorder(self, rows):
        pass


def log_p(previous: int, token: int) -> float:
    row = TABLE[previous].astype(float)
    return float(row[token] - np.log(np.exp(row).sum()))


def all_texts(previous: int, room: int) -> dict[tuple[int, ...], float]:
    """Every text of at most `room` ids after `previous`, with its probability."""
    texts = {}
    for token in range(V):
        p = np.exp(log_p(previous, token))
        if token == EOS or room == 1:
            texts[(token,)] = p
        else:
            texts |= {(token, *rest): p * q for rest, q in all_texts(token, room - 1).items()}
    return texts


TEXTS = all_texts(1, 2)  # 1 + 3 · 4 = 13


def sample(seed: int, k: int = 3, **more) -> tuple[list[tuple[int, ...]], tuple[Draw, ...]]:
    trace: list[tuple[Draw, ...]] = []
    options = Options(
        num_beams=k,
        do_sample=True,
        stochastic_beams=True,
        seed=seed,
        max_new_tokens=2,
        eos_token_id=EOS,
        num_return_sequences=k,
        **more,
    )
    found = generate(Table(), [[2, 1]], options, trace=trace)
    return [tuple(one.ids) for one in found], trace[0]


def chi_square(degrees: int) -> float:
    """The 99.9 % quantile, by Wilson and Hilferty's approximation."""
    return degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3


def test_ordered_samples_have_their_exact_probabilities() -> None:
    draws = 6000
    counts = Counter(tuple(sample(seed, 2)[0]) for seed in range(draws))
    assert all(len(set(pair)) == 2 for pair in counts)
    expected = {(a, b): TEXTS[a] * TEXTS[b] / (1 - TEXTS[a]) for a, b in itertools.permutations(TEXTS, 2)}
    assert sum(expected.values()) == pytest.approx(1)
    statistic = sum((counts[pair] - draws * p) ** 2 / (draws * p) for pair, p in expected.items() if draws * p >= 5)
    rare = [pair for pair, p in expected.items() if draws * p < 5]
    mass = draws * sum(expected[pair] for pair in rare)
    statistic += (sum(counts[pair] for pair in rare) - mass) ** 2 / mass
    assert statistic < chi_square(len(expected) - len(rare))


def test_the_first_is_a_plain_sample_and_the_order_is_that_of_the_gumbels() -> None:
    draws = 4000
    counts: Counter = Counter()
    for seed in range(draws):
        found, drawn = sample(seed + 100_000)
        counts[found[0]] += 1
        assert [draw.gumbel for draw in drawn] == sorted((draw.gumbel for draw in drawn), reverse=True)
    statistic = sum((counts[text] - draws * p) ** 2 / (draws * p) for text, p in TEXTS.items())
    assert statistic < chi_square(len(TEXTS) - 1)


def test_the_estimate_of_an_expectation_has_no_bias() -> None:
    lengths = {text: float(len(text)) + text[-1] for text in TEXTS}
    truth = sum(TEXTS[text] * value for text, value in lengths.items())
    estimates = []
    for seed in range(4000):
        found, drawn = sample(seed + 200_000, 4)
        estimates.append(estimate(drawn, [lengths[text] for text in found[:-1]]))
    error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - truth) < 4 * error
    assert error < 0.05 * truth


def test_as_many_beams_as_texts_draw_each_once() -> None:
    found, drawn = sample(5, 4, top_k=None)
    assert len(set(found)) == 4
    for text, draw in zip(found, drawn, strict=True):
        assert draw.log_probability == pytest.approx(np.log(TEXTS[text]), abs=1e-5)
    trace: list[tuple[Draw, ...]] = []
    options = Options(num_beams=4, do_sample=True, stochastic_beams=True, seed=1, max_new_tokens=1, eos_token_id=EOS)
    generate(Table(), [[1]], options, trace=trace)
    assert sorted(draw.ids for draw in trace[0]) == [(0,), (1,), (2,), (3,)]
    assert estimate(trace[0], [1.0] * 4) == pytest.approx(1)


def test_the_largest_is_what_it_was_conditioned_on() -> None:
    gumbels = conditioned(np.array([0.3, -2.0, -np.inf, 5.0]), -1.25)
    assert gumbels.max() == gumbels[3] == -1.25
    assert gumbels[2] == -np.inf
    assert np.isfinite(gumbels[:2]).all()


def test_temperature_and_seed_act() -> None:
    assert sample(7) == sample(7)
    assert len({tuple(sample(seed)[0]) for seed in range(20)}) > 5
    cold = Counter(sample(seed, 2, temperature=0.1)[0][0] for seed in range(50))
    greedy = generate(Table(), [[1]], Options(max_new_tokens=2, eos_token_id=EOS))[0]
    assert cold.most_common(1)[0][0] == tuple(greedy.ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "stochastic_beams needs do_sample"),
        ({"do_sample": True}, "stochastic_beams acts only in beam search"),
        ({"do_sample": True, "num_beams": 2, "length_penalty": 0.5}, "can't be combined with length_penalty"),
    ],
)
def test_contradictions_are_refused_by_name(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Options(stochastic_beams=True, **options)
