"""Constraints over ids: against every text there is, and against transformers under the same rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TorchStepper, new_ids, reference_generate, reference_model, seeded
from scipy.stats import chisquare

from decoders import Options, generate, stream
from decoders.processors.constraint import Constraint

V, EOS, LONGEST = 6, 5, 4


class Table:
    """Logits that depend on the last id alone, with hidden states for contrastive search and layers for DoLa."""

    n_layer, tied = 4, False

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.table = random.standard_normal((V, V)).astype(np.float32) * 3
        self.states = random.standard_normal((V, 4)).astype(np.float32)
        self.early = random.standard_normal((self.n_layer, V, V)).astype(np.float32) * 3

    def feed(self, ids) -> np.ndarray:
        return self.table[[row[-1] for row in ids]]

    def feed_hidden(self, ids) -> tuple[np.ndarray, list[np.ndarray]]:
        return self.feed(ids), [self.states[list(row)] for row in ids]

    def feed_layers(self, ids, layers) -> tuple[np.ndarray, np.ndarray]:
        return self.feed(ids), self.early[list(layers)][:, [row[-1] for row in ids]]

    def reorder(self, rows) -> None:
        pass


class Texts:
    """The automaton of a list of texts, by looking at all of them."""

    def __init__(self, texts) -> None:
        self.texts = {tuple(text) for text in texts}

    def following(self, new) -> tuple[np.ndarray, bool]:
        allowed, new = np.zeros(V, bool), tuple(new)
        for text in self.texts:
            if len(text) > len(new) and text[: len(new)] == new:
                allowed[text[len(new)]] = True
        return allowed, new in self.texts


texts = st.lists(st.lists(st.integers(0, V - 2), min_size=1, max_size=LONGEST), min_size=1, max_size=8)
STRATEGIES = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"do_sample": st.just(True), "seed": st.integers(0, 99), "num_return_sequences": st.integers(1, 3)}
    ),
    st.fixed_dictionaries(
        {
            "do_sample": st.just(True),
            "seed": st.integers(0, 99),
            "top_p": st.floats(0.1, 1),
            "temperature": st.floats(0.2, 3),
            "top_k": st.integers(1, V),
        }
    ),
    st.fixed_dictionaries({"do_sample": st.just(True), "seed": st.integers(0, 99), "best_of": st.integers(2, 4)}),
    st.fixed_dictionaries({"do_sample": st.just(True), "seed": st.integers(0, 99), "mirostat": st.integers(1, 2)}),
    st.fixed_dictionaries({"do_sample": st.just(True), "seed": st.integers(0, 99), "profile": st.just("llama.cpp")}),
    st.fixed_dictionaries(
        {
            "num_beams": st.integers(2, 5),
            "early_stopping": st.sampled_from([True, False, "never"]),
            "length_penalty": st.sampled_from([-1.0, 0.0, 1.0, 2.0]),
        }
    ),
    st.fixed_dictionaries({"num_beams": st.integers(2, 5), "do_sample": st.just(True), "seed": st.integers(0, 99)}),
    st.fixed_dictionaries(
        {
            "num_beams": st.just(4),
            "num_beam_groups": st.sampled_from([2, 4]),
            "diversity_penalty": st.floats(0.1, 3),
            "early_stopping": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "num_beams": st.integers(2, 5),
            "do_sample": st.just(True),
            "seed": st.integers(0, 99),
            "stochastic_beams": st.just(True),
        }
    ),
    st.fixed_dictionaries({"penalty_alpha": st.floats(0.1, 1), "top_k": st.integers(2, 4)}),
    st.just({"exhaustive": True}),
    st.just({"dola_layers": "high"}),
    st.fixed_dictionaries({"dola_layers": st.just("low"), "do_sample": st.just(True), "seed": st.integers(0, 99)}),
)


@given(texts=texts, options=STRATEGIES, seed=st.integers(0, 20), ends=st.booleans(), several=st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_strategy_writes_only_what_is_allowed(texts, options, seed, ends, several) -> None:
    prompts = [[0], [1, 2]] if several else [[0]]
    chosen = Options(eos_token_id=EOS if ends else None, constraint=Texts(texts), max_new_tokens=LONGEST + 1, **options)
    for completion in generate(Table(seed), prompts, chosen):
        text = completion.ids[:-1] if completion.ids[-1] == EOS else completion.ids
        if completion.finish_reason == "stop":
            assert text in texts
        else:  # without an end-of-text, a text to which more may be added goes on to the end of the room
            assert not ends
            assert text in texts
        assert ends == (completion.ids[-1] == EOS)


@given(texts=texts, seed=st.integers(0, 20), penalty=st.sampled_from([0.0, 1.0, 2.0]))
@settings(max_examples=50, deadline=None)
def test_wide_beams_rank_all_texts(texts, seed, penalty) -> None:
    texts = [list(text) for text in {tuple(text) for text in texts}][:V]
    options = {
        "eos_token_id": EOS,
        "constraint": Texts(texts),
        "max_new_tokens": LONGEST + 1,
        "length_penalty": penalty,
        "num_return_sequences": len(texts),
    }
    found = generate(Table(seed), [[0]], Options(num_beams=V, early_stopping="never", **options))
    best = generate(Table(seed), [[0]], Options(exhaustive=True, **options))
    np.testing.assert_allclose([one.score for one in found], [one.score for one in best], rtol=1e-5)
    assert sorted(one.ids for one in found) == sorted([*text, EOS] for text in texts)


@given(texts=texts, seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_greedy_by_definition(texts, seed) -> None:
    """At each step the best of what some text goes on with, end-of-text where it is one."""
    model, written = Table(seed), [0]
    while written[-1] != EOS:
        begun = [text[len(written) - 1 :] for text in texts if text[: len(written) - 1] == written[1:]]
        possible = {rest[0] if rest else EOS for rest in begun}
        written.append(max(possible, key=lambda token: model.table[written[-1], token]))
    options = Options(eos_token_id=EOS, constraint=Texts(texts), max_new_tokens=9)
    assert generate(model, [[0]], options)[0].ids == written[1:]
    assert [token.id for token in stream(model, [[0]], options)] == written[1:]


def test_sampling_has_the_distribution_of_each_step_renormalised() -> None:
    texts, draws = [[0], [0, 1], [2, 3], [1, 1, 1], [4]], 20_000
    options = Options(
        eos_token_id=EOS, constraint=Texts(texts), max_new_tokens=9, do_sample=True, seed=3, num_return_sequences=draws
    )
    model = Table(4)
    model.table /= 3
    drawn = [tuple(one.ids[:-1]) for one in generate(model, [[0]], options)]
    expected = []
    for text in texts:
        p, automaton = 1.0, Texts(texts)
        for length, token in enumerate([*text, EOS]):
            allowed, complete = automaton.following(text[:length])
            allowed[EOS] = complete
            weights = np.exp(model.table[[0, *text][length]].astype(np.float64)) * allowed
            p *= weights[token] / weights.sum()
        expected.append(p * draws)
    counted = [drawn.count(tuple(text)) for text in texts]
    assert sum(counted) == draws
    assert chisquare(counted, expected).pvalue > 0.001


# ---- the same as transformers under the same rule ------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "top_p": 0.9},
        {"num_beams": 3},
        {"num_beams": 4, "early_stopping": True, "num_return_sequences": 2},
    ],
)
def test_transformers_with_the_same_rule(options: dict) -> None:
    for seed in range(8):
        reference = reference_model(seed, vocab_size=V, n_positions=16, n_layer=1, n_embd=8, n_head=2)
        random = np.random.default_rng(seed)
        automaton = Texts(random.integers(0, V - 1, random.integers(1, LONGEST + 1)) for _ in range(20))

        def rule(number, ids, automaton=automaton):
            allowed, complete = automaton.following(ids[2:].tolist())
            # transformers wants to be told some token even after what no text begins with.
            return [*np.flatnonzero(allowed).tolist(), *([EOS] if complete or not allowed.any() else [])]

        room = {"max_new_tokens": LONGEST + 1, "eos_token_id": EOS} | options
        theirs = reference_generate(reference, [[1, 2]], seed, prefix_allowed_tokens_fn=rule, **room)
        ours = generate(TorchStepper(reference), [[1, 2]], Options(constraint=automaton, **seeded(seed, room)))
        assert [one.ids for one in ours] == new_ids(theirs, [[1, 2]], EOS)
        if "num_beams" in options:
            scores = [one.score for one in ours]
            np.testing.assert_allclose(scores, theirs.sequences_scores.numpy(), atol=2e-5)


# ---- where it ends, and what can't be ------------------------------------------------------------------------------


def test_room_runs_out() -> None:
    options = {"eos_token_id": EOS, "constraint": Texts([[1, 2, 3], [1, 2, 3, 4]])}
    cut, whole, closed = (generate(Table(), [[0]], Options(max_new_tokens=n, **options))[0] for n in (2, 3, 4))
    assert (cut.ids, cut.finish_reason) == ([1, 2], "length")
    assert (whole.ids, whole.finish_reason) == ([1, 2, 3], "length")  # complete, but more could have followed
    only = Options(max_new_tokens=3, eos_token_id=EOS, constraint=Texts([[1, 2, 3]]))
    assert generate(Table(), [[0]], only)[0].finish_reason == "stop"  # nothing could
    assert closed.ids[:3] == [1, 2, 3]
    assert generate(Table(), [[0]], only, context=2)[0].finish_reason == "length"


def test_forced_words_within_the_constraint() -> None:
    texts = [[1, 2], [3, 4, 0], [3, 2], [1, 1, 4]]
    for ends in (EOS, None):
        options = {"eos_token_id": ends, "constraint": Texts(texts), "max_new_tokens": 6, "num_beams": 4}
        found = generate(Table(), [[0], [3]], Options(force_words_ids=[[4]], num_return_sequences=2, **options))
        for one in found:
            assert [token for token in one.ids if token != EOS] in ([3, 4, 0], [1, 1, 4])


def test_a_stop_waits_for_a_complete_text() -> None:
    def after_2(prompt, new) -> bool:
        return new[-1] == 2

    options = Options(eos_token_id=EOS, constraint=Texts([[1, 2, 3, 2], [1, 2, 3, 2, 4]]), max_new_tokens=9)
    found = generate(Table(), [[0]], options, stopping=[after_2])[0]
    assert (found.ids, found.finish_reason) == ([1, 2, 3, 2], "stop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_new_tokens": 4}, r"no token is left .* after constraint: .* \(before it: min_new_tokens\)"),
        ({"suppress_tokens": [2]}, r"no token is left .* after constraint: .* \(before it: suppress_tokens\)"),
        ({"bad_words_ids": [[1, 2]]}, r"no token is left .* after constraint: .* \(before it: bad_words_ids\)"),
        ({"forced_eos_token_id": EOS, "max_new_tokens": 2}, r"\(before it: forced_eos_token_id\)"),
        ({"profile": "mlx-lm"}, "profile 'mlx-lm' has no constraint"),
        (
            {"order": ["constraint", "forced_eos_token_id"], "forced_eos_token_id": 1},
            r"order must put constraint after what puts forbidden tokens back, got \['forced_eos_token_id'\]",
        ),
        ({"constraint": "a"}, "constraint must be an automaton with a method `following`, got 'a'"),
    ],
)
def test_what_can_t_be(options: dict, message: str) -> None:
    rest = {"eos_token_id": EOS, "constraint": Texts([[1, 2], [1, 2, 3]]), "max_new_tokens": 5}
    with pytest.raises(ValueError, match=message):
        generate(Table(), [[0]], Options(**rest | options))


def test_the_processor() -> None:
    scores = np.arange(2 * V, dtype=np.float32).reshape(2, V)
    before, processor = scores.copy(), Constraint(Texts([[1], [1, 2]]), 2, (EOS,))
    out = processor([np.array([4, 4]), np.array([4, 4, 1])], scores)
    np.testing.assert_array_equal(np.isfinite(out), [[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1]])
    np.testing.assert_array_equal(out[np.isfinite(out)], scores[np.isfinite(out)])
    np.testing.assert_array_equal(scores, before)
    with pytest.raises(ValueError, match="constraint must speak of as many ids as there are scores"):
        processor([np.array([4, 4])], scores[:1, :3])
