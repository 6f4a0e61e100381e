"""Token healing against transformers' own, on the bundled model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2_np import GPT2
from gpt2_np.cli import cli

PROMPTS = [
    "Once upon a ti",
    "Once upon a time",  # the last token begins with a space
    "The kin",
    "Onc",
    "The",  # one token alone
    'She said: "Hel',
    "the cat was very hap",
    "a b ",  # white space at the end goes
    "café",
    "café ju",
    "<|endoftext|>The kin",
    "He is 1",
    "x<",
]


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.fixture(scope="module")
def theirs(model: GPT2) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(str(model.folder))
    tokenizer.pad_token = tokenizer.eos_token
    return GPT2LMHeadModel.from_pretrained(str(model.folder)).eval(), tokenizer


@pytest.mark.parametrize("prompt", PROMPTS)
def test_transformers_tokens(model: GPT2, theirs: Any, prompt: str) -> None:
    reference, tokenizer = theirs
    asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
    ids = torch.tensor([model.tokenizer.encode(prompt)])
    again = reference.heal_tokens(ids, tokenizer)
    if again.shape == ids.shape:
        out = reference.generate(ids, tokenizer=tokenizer, token_healing=True, **asked)[0].tolist()
    else:  # transformers would go on with the mask of the longer prompt
        out = reference.generate(again, attention_mask=torch.ones_like(again), **asked)[0].tolist()
    ours = model.generate(prompt, token_healing=True, max_new_tokens=6)
    assert [*model.tokenizer.encode(ours.prompt), *ours.ids] == out
    assert "".join(model.stream(prompt, token_healing=True, max_new_tokens=6)) == ours.text


def test_something_was_healed(model: GPT2) -> None:
    assert model.generate("The kin", token_healing=True, max_new_tokens=1).prompt == "The kings"
    both = model.generate(["The kin", "Onc"], token_healing=True, max_new_tokens=1)
    assert [one.prompt for one in both] == ["The kings", "Onc"]
    assert model.generate("The kin", token_healing=False, max_new_tokens=1).prompt == "The kin"


def test_what_cannot_be_is_refused(model: GPT2) -> None:
    with pytest.raises(ValueError, match=r"^token_healing must be True or False, got 'yes'$"):
        model.generate("The kin", token_healing="yes")  # type: ignore[arg-type]


def test_generation_config_asks_for_it(model: GPT2, tmp_path: Path) -> None:
    shutil.copytree(str(model.folder), tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text(json.dumps({"token_healing": True, "eos_token_id": 0}))
    told = GPT2.from_pretrained(tmp_path)
    assert told.generate("The kin", max_new_tokens=1).prompt == "The kin"
    assert told.generate("The kin", max_new_tokens=1, generation_config=True).prompt == "The kings"
    off = told.generate("The kin", max_new_tokens=1, generation_config=True, token_healing=False)
    assert off.prompt == "The kin"
    done = CliRunner().invoke(cli, ["generate", "The kin", "-n", "3", "--generation-config", "--model", str(tmp_path)])
    assert done.stdout == "The kings" + told.generate("The kin", max_new_tokens=3, token_healing=True).text + "\n"


def test_a_flag_asks_for_it(model: GPT2, tmp_path: Path) -> None:
    written = model.generate("The kin", max_new_tokens=4, token_healing=True)
    command = ["generate", "The kin", "-n", "4", "--token-healing"]
    assert CliRunner().invoke(cli, command).stdout == f"The kings{written.text}\n"
    found = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert (found["prompt"], found["healed"], found["ids"]) == ("The kin", "The kings", written.ids)
    (tmp_path / "prompts.txt").write_text("The kin\nOnc\n")
    lines = CliRunner().invoke(cli, ["generate", "--prompts", str(tmp_path / "prompts.txt"), *command[2:]]).stdout
    assert [json.loads(line)["healed"] for line in lines.splitlines()] == ["The kings", "Onc"]
    plain = CliRunner().invoke(cli, command[:-1]).stdout
    assert plain.startswith("The kin")
    assert not plain.startswith("The kings")
