"""The published weights' known outputs, wherever the weights are; the table itself, everywhere."""

from __future__ import annotations

import huggingface_hub
import pytest

from gpt2_np import GPT2, hub
from gpt2_np.parity import official

NAMES = sorted({known.model for known in official.KNOWN})


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
    assert [check.verdict for check in official.check("x", model)] == ["same", "mismatch", "mismatch"]


def test_the_table_names_models_that_can_be_loaded_and_says_where_it_is_from() -> None:
    for known in official.KNOWN:
        assert known.model in hub.OFFICIAL
        assert known.source
        assert (known.text is None) != (known.ids is None)
