"""The published weights' known outputs, wherever the weights are; the table itself, everywhere."""

from __future__ import annotations

from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest

from gpt2_np import GPT2
from gpt2_np.parity import official
from gpt2_np.weights import hub

NAMES = sorted({known.model for known in (*official.KNOWN, *official.LOGITS, *official.ACCURACY)})


@pytest.mark.parametrize("name", NAMES)
def test_known_outputs(name: str) -> None:
    # In the hub's cache, that is: no test downloads gigabytes by itself.
    if not isinstance(huggingface_hub.try_to_load_from_cache(hub.OFFICIAL[name], "model.safetensors"), str):
        pytest.skip(f"the weights of {name} are not in the cache; 'gpt2-np info --model {name}' downloads them")
    assert [check for check in official.check(name, GPT2.from_pretrained(name)) if not check.passed] == []


def test_a_wrong_output_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT2.from_pretrained()
    out = model.generate("The king", max_new_tokens=4)
    right = official.Known("x", "The king", {"max_new_tokens": 4}, "here", "The king" + out.text, logprobs=out.logprobs)
    wrong = official.Known("x", "The king", {"max_new_tokens": 4}, "here", "The king is dead")
    off = official.Known("x", "The king", {"max_new_tokens": 4}, "here", "The king" + out.text, logprobs=[0.0] * 4)
    monkeypatch.setattr(official, "KNOWN", (right, wrong, off))
    verdicts = [check.verdict for check in official.check("x", model)]
    assert verdicts == ["same", "mismatch", "mismatch", "mismatch"]  # the last is of all three in one batch


def test_the_table_names_models_that_can_be_loaded_and_says_where_it_is_from() -> None:
    for known in official.KNOWN:
        assert known.model in hub.OFFICIAL
        assert known.source
        assert (known.text is None) != (known.ids is None)


class Fake:
    """A model whose logits are set by hand, with the bundled model's tokenizer and configuration."""

    def __init__(self, likely: str | None = None, first: tuple[float, ...] = ()) -> None:
        bundled = GPT2.from_pretrained()
        self.tokenizer, self.config, self.likely, self.first = bundled.tokenizer, bundled.config, likely, first
        self.fed: list[list[int]] = []

    def forward(self, ids: np.ndarray) -> np.ndarray:
        self.fed.append(ids[0].tolist())
        logits = np.zeros((*ids.shape, 60_000), np.float32)
        logits[..., : len(self.first)] = self.first
        if self.likely is not None:
            logits[..., self.tokenizer.encode(self.likely)[0]] = 1
        return logits


def test_known_logits_can_be_missed() -> None:
    (known,) = official.LOGITS
    right = Fake(first=known.logits)
    assert official.first_logits(known, right).passed
    assert right.fed == [[50256]]
    for place in range(3):
        off = tuple(value + 0.01 * (number == place) for number, value in enumerate(known.logits))
        assert not official.first_logits(known, Fake(first=off)).passed


def test_accuracy_counts_prompts_and_can_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    (known,) = official.ACCURACY
    prompts = official.indirect_objects()
    johns = sum(indirect == " John" for _, indirect, _ in prompts)
    found = official.accuracy(known, Fake(" John"))
    assert not found.passed
    assert f"{johns / 100:.2f} of 100" in found.note
    only = [one for one in prompts if one[1] == " John"]
    monkeypatch.setattr(official, "indirect_objects", lambda: only)
    assert official.accuracy(known, Fake(" John")).passed
    assert not official.accuracy(known, Fake(" Mary")).passed
    assert not official.accuracy(known, Fake()).passed  # equal is not above


def test_the_prompts_are_those_that_transformer_lens_draws() -> None:
    prompts = official.indirect_objects()
    # The first of TransformerLens 4.3's IOIDataset(tokenizer, num_samples=100, seed=42), without their last word.
    assert [prompt for prompt, _, _ in prompts[:3]] == [
        "Mary and John went to the store to buy bread. John handed the bread to",
        "John and Mary went to the store to buy bread. Mary handed the bread to",
        "Then, Mary and John went to the store. Mary gave the milk to",
    ]
    assert len(prompts) == 100
    assert {indirect for _, indirect, _ in prompts} == {" John", " Mary"}
    for prompt, indirect, subject in prompts:
        assert prompt.count(indirect.strip()) == 1
        assert prompt.count(subject.strip()) == 2
        assert prompt.endswith(" to")


def test_a_wrong_batch_and_a_wrong_end_are_mismatches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT2.from_pretrained()
    texts = [start + model.generate(start, max_new_tokens=4).text for start in ("The king", "Once")]
    known = [
        official.Known("x", start, {"max_new_tokens": 4}, "here", text)
        for start, text in zip(("The king", "Once"), texts, strict=True)
    ]
    assert [check.verdict for check in official.together(known, model)] == ["same"]
    swapped = [known[0], replace(known[1], text=texts[0])]
    assert [check.verdict for check in official.together(swapped, model)] == ["mismatch"]
    end = model.config.eos_token_ids[0]
    out = model.generate("The king", max_new_tokens=4, forced_eos_token_id=end)
    ended = official.Known(
        "x",
        "The king",
        {"max_new_tokens": 4, "forced_eos_token_id": end},
        "here",
        "The king" + out.text + "<|endoftext|>",
    )
    assert official.output(0, ended, model).passed
    assert not official.output(0, replace(ended, text="The king" + out.text), model).passed


def test_a_hub_id_is_known_by_its_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT2.from_pretrained()
    monkeypatch.setattr(official, "KNOWN", (official.Known("gpt2", "The king", {"max_new_tokens": 1}, "here", "no"),))
    monkeypatch.setattr(official, "LOGITS", ())
    monkeypatch.setattr(official, "ACCURACY", ())
    for name in ("gpt2", "openai-community/gpt2"):
        assert [check.verdict for check in official.check(name, model)] == ["mismatch"]
    assert list(official.check("tales", model)) == []
