"""Likelihoods of given texts: after a prompt, in windows, of choices; against transformers' loss and brute force."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.model.ops import log_softmax
from gpt2_np.text.continuations import common
from gpt2_np.text.scoring import losses, nll, window_loss
from gpt2_np.weights import hub

PROMPT, CHOICES = "The king sat on his", [" throne", " horse", " hat and wept bitterly", " the"]
WORDS = st.text(alphabet="ab the’é ", min_size=1, max_size=8)


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(hub.BUNDLED / "tales", dtype=torch.float32).eval()


def loss(reference: GPT2LMHeadModel, before: list[int], ids: list[int]) -> float:
    """transformers' own summed loss of ids after others."""
    labels = torch.tensor([[-100] * len(before) + ids])
    with torch.inference_mode():
        return reference(torch.tensor([before + ids]), labels=labels).loss.item() * len(ids)


def test_a_text_after_a_prompt_costs_what_transformers_says(model: GPT2, theirs) -> None:
    before, ids = model.tokenizer.encode(PROMPT), model.tokenizer.encode(" throne and spoke.")
    score = model.score(" throne and spoke.", prompt=PROMPT)
    assert score.nll == pytest.approx(loss(theirs, before, ids), rel=1e-5)
    assert (score.tokens, score.bytes) == (len(ids), 18)
    assert model.score(ids, prompt=before) == score
    whole, alone = model.score([*before, *ids]), model.score(before)
    assert model.score([*before, *ids], prompt="").nll == pytest.approx(whole.nll)
    assert alone.nll + loss(theirs, [0, *before], ids) == pytest.approx(whole.nll, rel=1e-5)


@given(
    prompt=st.text("ab the", max_size=8),
    choices=st.lists(WORDS, min_size=1, max_size=4),
    by=st.sampled_from(["sum", "token", "byte"]),
)
@settings(max_examples=40, deadline=None)
def test_choices_against_brute_force(prompt: str, choices: list[str], by: str, model: GPT2) -> None:
    ranked = model.rank_choices(prompt, choices, by=by)
    assert sorted(one.index for one in ranked) == list(range(len(choices)))
    values = [one.by(by) for one in ranked]
    assert values == sorted(values, reverse=True)
    assert sum(one.share for one in ranked) == pytest.approx(1)
    # Every choice is charged for the same text: what is before it is the same for all, and together they are the text.
    befores = {tuple(model.tokenizer.encode(prompt + one.choice)[: -len(one.ids)]) for one in ranked}
    assert len(befores) == 1
    (before,) = befores
    assert prompt.startswith(model.tokenizer.decode(list(before)))
    for one in ranked:
        assert model.tokenizer.decode([*before, *one.ids]) == prompt + one.choice
        text = [*(before or [0]), *one.ids]
        logits = model(text).astype(np.float64)
        logp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        expected = sum(logp[place - 1, text[place]] for place in range(len(text) - len(one.ids), len(text)))
        assert one.logprob == pytest.approx(expected, abs=1e-3)
        assert one.per_token == one.logprob / len(one.ids)
        assert one.per_byte == one.logprob / len(one.choice.encode())


def test_choices_against_transformers_loss(model: GPT2, theirs) -> None:
    before = model.tokenizer.encode(PROMPT)
    expected = [-loss(theirs, before, model.tokenizer.encode(choice)) for choice in CHOICES]
    ranked = model.rank_choices(PROMPT, CHOICES)
    assert [one.logprob for one in sorted(ranked, key=lambda one: one.index)] == pytest.approx(expected, rel=1e-5)
    shares = np.exp(expected) / np.exp(expected).sum()
    assert [one.share for one in sorted(ranked, key=lambda one: one.index)] == pytest.approx(shares.tolist(), rel=1e-4)
    assert model.rank_choices(before, [model.tokenizer.encode(one) for one in CHOICES])[0].logprob == ranked[0].logprob


def test_a_prompt_that_ends_in_a_space_changes_nothing(model: GPT2) -> None:
    usual = model.rank_choices(PROMPT, CHOICES)
    spaced = model.rank_choices(PROMPT + " ", [one.removeprefix(" ") for one in CHOICES])
    assert [one.ids for one in spaced] == [one.ids for one in usual]
    assert [one.logprob for one in spaced] == pytest.approx([one.logprob for one in usual])


def test_ranks_differ_with_what_counts(model: GPT2) -> None:
    assert {model.rank_choices(PROMPT, CHOICES, by=by)[0].choice for by in ("sum", "token", "byte")} != {CHOICES[2]}
    assert model.rank_choices(PROMPT, CHOICES)[-1].choice == CHOICES[2]
    assert model.rank_choices(PROMPT, CHOICES, by="byte")[-1].choice != CHOICES[2]


@given(data=st.data(), n=st.integers(2, 40), stride=st.integers(1, 16))
@settings(max_examples=30, deadline=None)
def test_windows_behind_a_prompt(data, n: int, stride: int, model: GPT2) -> None:
    class Short:
        """The first context of 16 ids only, so that windows matter."""

        config = type("Config", (), {"n_positions": 16})
        tap = model.tap

        def start(self, capacity):
            assert capacity <= 16
            return model.start(capacity=capacity)

    ids = np.random.default_rng(n).integers(1, 4000, n)
    first = data.draw(st.integers(1, n - 1))
    each = [nll(Short(), ids, place, stride) for place in range(1, n)]
    costs = -np.diff([*each, 0.0])
    assert nll(Short(), ids, first, stride) == pytest.approx(costs[first - 1 :].sum(), abs=1e-6)
    if n <= 16:
        logits = model(ids[:-1]).astype(np.float64)
        logp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        assert costs == pytest.approx(-logp[np.arange(n - 1), ids[1:]], abs=1e-4)


class Counted:
    """A model that counts the positions it is fed."""

    def __init__(self, model: GPT2) -> None:
        self.config, self.tap, self.fed, self.inner = model.config, model.tap, 0, model

    def start(self, capacity: int) -> Counted:
        self.session = self.inner.start(capacity=capacity)
        return self

    def feed(self, ids):
        self.fed += np.size(ids)
        return self.session.feed(ids)

    def feed_all(self, ids):
        self.fed += np.size(ids)
        return self.session.feed_all(ids)


def test_work_grows_as_the_text_does_and_as_windows_overlap() -> None:
    """A position is read once for each window that holds it, however long the text: context / stride times."""
    tiny = GPT2.from_pretrained(Path(__file__).parent / "golden/bundle/model", backend="numpy")
    context = tiny.config.n_positions
    for n, stride in [(context, None), (500, None), (2000, None), (500, context), (500, 4)]:
        counted = Counted(tiny)
        nll(counted, np.arange(n + 1) % tiny.config.vocab_size, 1, stride)  # type: ignore[arg-type]
        overlap = context // (stride or context // 2)
        assert n <= counted.fed <= n * overlap, (n, stride)


@pytest.mark.parametrize("known", [0, 1, 300])
def test_a_window_is_read_in_blocks(model: GPT2, known: int) -> None:
    """As in one go, and as by a model with an edit, which reads the window whole."""
    ids = np.random.default_rng(3).integers(1, 4000, 401)
    whole = losses(model(ids[:-1])[known:], ids[known + 1 :]).sum()
    assert window_loss(model, ids, known) == pytest.approx(whole, rel=1e-12)
    edited = model.with_edits({"embed": lambda x: x})
    assert window_loss(edited, ids, known) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_are_minus_the_log_probabilities(dtype: type) -> None:
    logits = (20 * np.random.default_rng(0).standard_normal((9, 500))).astype(dtype)
    ids = np.arange(9)
    expected = [-log_softmax(row)[one] for row, one in zip(logits.astype(np.float64), ids, strict=True)]
    np.testing.assert_allclose(losses(logits, ids), expected, rtol=1e-6, atol=1e-7)
    assert losses(logits[:0], ids[:0]).shape == (0,)


def test_common() -> None:
    assert common([[1, 2, 3], [1, 2], [1, 2, 4]]) == 2
    assert common([[1], [2]]) == 0
    assert common([[], [2]]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.rank_choices("a", []), "choices must be a list of at least one text"),
        (lambda m: m.rank_choices("a", "bc"), "choices must be a list of at least one text, got 'bc'"),
        (lambda m: m.rank_choices("a", ["b", ""]), "a choice must have at least one token"),
        (lambda m: m.rank_choices("a", ["b"], by="chars"), "by must be 'sum', 'token' or 'byte', got 'chars'"),
        (lambda m: m.rank_choices([1] * 510, [[1, 2, 3]]), "at most 512 tokens, the model's context, got 513"),
        (lambda m: m.rank_choices([1], [[4096]]), "ids must be between 0 and 4095, got 4096"),
        (lambda m: m.score("", prompt="a"), "nothing to score"),
        (lambda m: m.score("a", stride=0), "stride must be a whole number between 1 and 512, got 0"),
        (lambda m: m.score("a", stride=2.5), "stride must be a whole number between 1 and 512, got 2.5"),
    ],
)
def test_what_can_t_be_scored(call, message: str, model: GPT2) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_ids_without_a_tokenizer(small) -> None:
    model = GPT2.from_pretrained(small)
    assert model.rank_choices([1, 2], [[3], [4, 5]])[0].logprob < 0
    assert math.isnan(model.score([1, 2, 3]).bits_per_byte)
    with pytest.raises(ValueError, match="by 'byte' needs choices that stand for at least one byte"):
        model.rank_choices([1, 2], [[3], [4, 5]], by="byte")


def test_on_the_command_line(model: GPT2) -> None:
    done = CliRunner().invoke(cli, ["choose", PROMPT, *CHOICES, "--json", "--by", "byte"])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    ranked = model.rank_choices(PROMPT, CHOICES, by="byte")
    assert [one["choice"] for one in found] == [one.choice for one in ranked]
    assert found[0]["per_byte"] == ranked[0].per_byte
    shown = CliRunner().invoke(cli, ["choose", PROMPT, *CHOICES]).stdout.splitlines()
    assert len(shown) == 5
    assert shown[1].split()[0] == "1"
    given_prompt = CliRunner().invoke(cli, ["score", " throne", "--prompt", PROMPT, "--json"])
    assert json.loads(given_prompt.stdout)["nll"] == pytest.approx(model.score(" throne", prompt=PROMPT).nll)
