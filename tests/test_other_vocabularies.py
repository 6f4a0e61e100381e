"""Drafts of another vocabulary, and of the model's own first layers: the text stays, or its distribution does."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from golden_searches import model
from scipy.stats import chisquare

from decoders import Options, generate
from decoders.base.interface import softmax
from gpt2_np import GPT2
from gpt2_np.model.config import Config
from gpt2_np.model.params import assemble, shapes
from gpt2_np.session.first_layers import first_layers
from gpt2_np.text.translation import Between, Translated, between

PROMPTS = ["The king was old and", "Once upon a time there was", "“No,” said the cat — 12 mice"]


@cache
def tales() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module", params=["shuffled", "smaller"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GPT2:
    """The bundled model under other ids: all of its tokens in another order, or without those merged last."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    inner = json.loads(tales().tokenizer.inner.to_str())["model"]
    words = sorted(inner["vocab"], key=inner["vocab"].__getitem__)
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in inner["merges"]]
    if request.param == "smaller":
        merges = merges[:-600]
        made = {"".join(pair.split(" ")) for pair in merges}
        words = [word for word in words if len(word) == 1 or word in made or word == "<|endoftext|>"]
    else:
        words = [words[place] for place in np.random.default_rng(0).permutation(len(words))]
    (folder / "vocab.json").write_text(json.dumps({word: token for token, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    before = tales().tokenizer.inner.get_vocab(with_added_tokens=True)
    rows = np.array([before[word] for word in words])
    params = tales().params._replace(wte=tales().params.wte[rows])
    if params.lm_head is not None:
        params = params._replace(lm_head=params.wte)
    config = replace(tales().config, vocab_size=len(words), bos_token_id=None, eos_token_id=None)
    return GPT2(params, config, folder=folder)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_stays_and_drafts_are_what_the_other_would_say(other: GPT2, prompt: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 24, "eos_token_id": None}
    plain = tales().generate(prompt, **options)
    out = tales().generate(
        prompt, assistant_model=other, num_assistant_tokens=5, assistant_confidence_threshold=0.0, **options
    )
    assert (out.ids, out.logprobs, out.text) == (plain.ids, plain.logprobs, plain.text)
    assert out.assistance is not None
    if other.config.vocab_size == tales().config.vocab_size:  # the same model under other ids is right always
        assert out.assistance.accepted == out.assistance.proposed
    assert out.assistance.accepted >= 6
    assert "".join(tales().stream(prompt, assistant_model=other, **options)) == plain.text


def test_the_same_vocabulary_needs_no_translation() -> None:
    tokenizer, size = tales().tokenizer, tales().config.vocab_size
    assert between(tokenizer, tokenizer, size, size) is None


def test_sampled_text_is_sound_and_repeats(other: GPT2) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": True, "seed": 4, "temperature": 0.8, "top_p": 0.9}
    one, again = (tales().generate(PROMPTS[0], assistant_model=other, **options) for _ in range(2))
    assert one.ids == again.ids
    assert one.assistance is not None
    assert one.assistance.draft_passes > 0


# ---- the distribution, exactly --------------------------------------------------------------------------------------


class Letters:
    """A tokenizer whose ids are letters."""

    special_ids: tuple[int, ...] = ()
    end_of_text = None

    def __init__(self, letters: str) -> None:
        self.letters, self.ids = letters, range(len(letters))

    def bytes_of(self, token: int) -> bytes:
        return self.letters[token].encode()

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [self.letters.index(letter) for letter in text if letter in self.letters]


class Table:
    """A stepper of one row whose logits depend on the last id alone."""

    def __init__(self, seed: int, V: int) -> None:
        self.logits = np.random.default_rng(seed).standard_normal((V, V)).astype(np.float32) * 1.5

    def feed(self, ids) -> np.ndarray:
        return self.logits[[row[-1] for row in ids]]

    def feed_all(self, ids) -> list[np.ndarray]:
        return [self.logits[list(row)] for row in ids]

    def rewind(self, counts) -> None:
        pass

    def reorder(self, rows) -> None:
        pass


OURS, THEIRS = Letters("abcdef"), Letters("fedcx")  # a and b are ours alone


def shared() -> Between:
    found = between(OURS, THEIRS, 6, 5)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_logits_are_told_by_spelling_and_nothing_of_what_is_ours_alone() -> None:
    told = Translated(lambda: Table(1, 5), shared()).feed([[2]])[0]
    theirs = Table(1, 5).logits[3]  # after c
    assert told.tolist() == [-np.inf, -np.inf, theirs[3], theirs[2], theirs[1], theirs[0]]
    with pytest.raises(ValueError, match="assistant_model must have some token that the model has too"):
        between(OURS, Letters("xyz"), 6, 3)  # type: ignore[arg-type]


def test_a_text_beyond_its_room_is_cut_at_its_beginning() -> None:
    translated = Translated(lambda: Table(1, 5), shared())
    translated.room = 4
    for length in range(1, 12):
        translated.ids = [2, 3, 4, 5] * 3
        del translated.ids[length:]
        found = translated.encoded()
        assert 1 <= len(found) <= 4
        assert found == THEIRS.encode("cdefcdefcdef"[:length])[-len(found) :]


def test_sampling_keeps_the_distribution_exactly() -> None:
    target, n = Table(0, 6), 1500
    options = Options(
        do_sample=True,
        seed=1,
        assistant_model=lambda: Translated(lambda: Table(1, 5), shared()),
        num_assistant_tokens=2,
        assistant_confidence_threshold=0.0,
        max_new_tokens=2,
        num_return_sequences=n,
        temperature=0.8,
    )
    found = generate(target, [[2]], options)
    p = softmax(target.logits.astype(np.float64) / 0.8)
    counts = np.zeros((6, 6))
    for one in found:
        counts[tuple(one.ids)] += 1
    expected = n * p[2][:, None] * p
    common = expected > 8
    merged = [*counts[common], counts[~common].sum()], [*expected[common], expected[~common].sum()]
    assert chisquare(*merged).pvalue > 0.001
    assert counts[0].sum() > 0  # what the other has no token for is written too


# ---- tokenizers that have little in common --------------------------------------------------------------------------


def strange(folder: Path, kind: str) -> GPT2:
    """A small random model whose tokenizer was made from other text: Python code by byte-level BPE, or single bytes."""
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700 if kind == "code" else 257,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.train_from_iterator([Path(__file__).read_text()] if kind == "code" else [], trainer)
    folder.mkdir(parents=True)
    inner.save(str(folder / "tokenizer.json"))
    config = Config(inner.get_vocab_size(), 64, 16, 2, 2, eos_token_id=None, bos_token_id=None)
    dice = np.random.default_rng(5)
    weights = {name: dice.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes(config).items()}
    return GPT2(assemble(weights, config), config, folder=folder, backend="numpy")


@pytest.mark.parametrize("kind", ["code", "bytes"])
def test_greedy_text_stays_under_a_really_different_tokenizer(kind: str, tmp_path: Path) -> None:
    other = strange(tmp_path / kind, kind)
    told = between(tales().tokenizer, other.tokenizer, tales().config.vocab_size, other.config.vocab_size)
    assert told is not None
    assert len(told.our_ids) < 0.15 * tales().config.vocab_size  # the bytes, and few tokens besides
    for prompt in PROMPTS:
        options: dict[str, Any] = {"max_new_tokens": 10, "eos_token_id": None, "assistant_confidence_threshold": 0.0}
        out = tales().generate(prompt, assistant_model=other, num_assistant_tokens=3, **options)
        del options["assistant_confidence_threshold"]
        plain = tales().generate(prompt, **options)
        assert (out.ids, out.logprobs) == (plain.ids, plain.logprobs)
        assert out.assistance is not None
        assert out.assistance.proposed > 0


def test_sampling_under_really_different_tokenizers_keeps_the_distribution(tmp_path: Path) -> None:
    """Two models from end to end: bytes are written with the help of what says words of code, and the other way."""
    for number, (kind, other) in enumerate([("bytes", "code"), ("code", "bytes")]):
        target = strange(tmp_path / f"{number}" / kind, kind)
        draft = strange(tmp_path / f"{number}" / other, other)
        n = 300
        found = target.generate(
            "def test",
            assistant_model=draft,
            num_assistant_tokens=1,
            assistant_confidence_threshold=0.0,
            num_return_sequences=n,
            max_new_tokens=2,  # a draft for the first of them
            do_sample=True,
            temperature=0.4,
            seed=3,
        )
        assert sum(one.assistance.accepted for one in found if one.assistance) > 2
        p = softmax(target(target.tokenizer.encode("def test"))[-1].astype(np.float64) / 0.4)
        counts = np.bincount([one.ids[0] for one in found], minlength=len(p))
        common = n * p > 8
        assert common.sum() >= 3
        merged = [*counts[common], counts[~common].sum()], [*(n * p[common]), n * p[~common].sum()]
        assert chisquare(*merged).pvalue > 0.001


# ---- the model's own first layers ----------------------------------------------------------------------------------


def test_the_first_layers_are_a_model_under_the_same_norm_and_head() -> None:
    chosen, ids = tales(), [343, 768, 12, 9]
    _, cache = chosen.run_with_cache(ids, names=["blocks.1.resid_post"])
    stream = cache["blocks.1.resid_post"]
    norm = chosen.params.ln_f
    centred = stream - stream.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + chosen.config.layer_norm_epsilon)
    expected = chosen.unembed((scaled * norm.weight + norm.bias).astype(np.float32))
    np.testing.assert_allclose(first_layers(chosen, 2)(ids), expected.reshape(4, -1), atol=1e-4)
    assert first_layers(chosen, 2) is first_layers(chosen, 2)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_greedy_text_stays_under_early_exit(layers: int) -> None:
    layers = min(layers, tales().config.n_layer)
    options: dict[str, Any] = {"max_new_tokens": 20, "eos_token_id": None}
    plain = tales().generate(PROMPTS[1], **options)
    exits = {"assistant_early_exit": layers, "num_assistant_tokens": 4, "assistant_confidence_threshold": 0.0}
    out = tales().generate(PROMPTS[1], **options, **exits)
    assert (out.ids, out.logprobs) == (plain.ids, plain.logprobs)
    assert out.assistance is not None
    if layers == tales().config.n_layer:
        assert out.assistance.accepted == out.assistance.proposed > 0


def test_sampling_under_early_exit_is_what_a_draft_of_those_layers_gives() -> None:
    chosen = model(1)
    asked: dict[str, Any] = {"do_sample": True, "seed": 3, "max_new_tokens": 8, "num_assistant_tokens": 3}
    one = Options(assistant_early_exit=1, first_layers=lambda n: first_layers(chosen, n).start(), **asked)
    other = Options(assistant_model=first_layers(chosen, 1).start, **asked)
    assert generate(chosen.start(), [[4, 5]], one)[0] == generate(chosen.start(), [[4, 5]], other)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assistant_early_exit": 99}, r"assistant_early_exit must be between 1 and \d+, got 99"),
        ({"assistant_early_exit": 0}, "assistant_early_exit must be a whole number of at least 1, got 0"),
        ({"assistant_early_exit": 1, "num_beams": 2}, "assistant_early_exit can't be combined with num_beams"),
        ({"num_assistant_tokens": 3}, "num_assistant_tokens needs one of assistant_model, assistant_early_exit"),
    ],
)
def test_what_can_t_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tales().generate("The", **options)
    with pytest.raises(ValueError, match="assistant_early_exit needs first_layers"):
        Options(assistant_early_exit=1)
