"""generation_config.json against transformers, which reads the same folder: ends, and settings where asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli import cli, main
from gpt2_np.parity.suite import Case, ends, own, tokens
from gpt2_np.text.generation_config import asked, settings
from gpt2_np.text.gpt2 import on_torch

PROMPTS = [[1, 2, 3], [40, 7], [9] * 5]


def folder_with(small: Path, target: Path, content: Any, **config: Any) -> Path:
    """A copy of the small model with this generation_config.json, or none where `content` is None."""
    shutil.copytree(small, target, dirs_exist_ok=True)
    fields = json.loads((small / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(fields | config))
    file = target / "generation_config.json"
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_text(json.dumps(content))
    return target


def likely(small: Path) -> list[int]:
    """The ids that the small model writes after the first prompt."""
    return GPT2.from_pretrained(small, backend="numpy").generate(PROMPTS[0], max_new_tokens=12, eos_token_id=()).ids


@pytest.mark.parametrize("case", ["a number", "a list", "none", "not said", "no file", "outside"])
def test_texts_end_where_transformers_ends_them(case: str, small: Path, tmp_path: Path) -> None:
    written = likely(small)
    third, config = written[2], next(token for token in written if token != written[2])
    content: Any = {
        "a number": {"eos_token_id": third},
        "a list": {"eos_token_id": [96, third]},
        "none": {"eos_token_id": None},
        "not said": {"temperature": 0.5},
        "no file": None,
        "outside": {"eos_token_id": [-1, 97, third]},
    }[case]
    folder = folder_with(small, tmp_path, content, eos_token_id=config)
    ours, theirs = GPT2.from_pretrained(folder, backend="numpy"), on_torch(folder)
    assert sorted(ours.eos_token_ids) == sorted(theirs.implementation.transformers_eos)
    assert ends(ours, theirs).passed
    for prompt in PROMPTS:
        expected = theirs.implementation.transformers_generate(
            prompt, max_new_tokens=12, eos_token_id=theirs.implementation.own_settings.eos_token_id
        )
        assert ours.generate(prompt, max_new_tokens=12).ids == expected[0]
    if case in ("a number", "a list", "outside"):
        out = ours.generate(PROMPTS[0], max_new_tokens=12)
        assert (out.ids[-1], out.finish_reason) == (third, "stop")
        assert len(ours.generate(PROMPTS[0], max_new_tokens=12, eos_token_id=()).ids) == 12


SETTINGS: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 0.7, "top_k": 9},
    {"do_sample": True, "top_p": 0.8, "repetition_penalty": 1.3, "num_return_sequences": 3},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 2},
    {"do_sample": False, "temperature": 0.7, "top_p": 0.5, "suppress_tokens": [3, 5], "eos_token_id": [4, 5]},
    {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "min_length": 0},
    {"do_sample": True, "typical_p": 0.7, "foo_bar": 3, "use_cache": False, "cache_implementation": "static"},
    {"max_length": 9},
    {"max_new_tokens": 5, "do_sample": True, "epsilon_cutoff": 0.001},
]


@pytest.mark.parametrize("content", SETTINGS, ids=str)
def test_settings_give_what_transformers_gives_where_asked_for(
    content: dict[str, Any], small: Path, tmp_path: Path
) -> None:
    at_most = {} if "max_length" in content or "max_new_tokens" in content else {"max_new_tokens": 12}
    readable = {
        name: value for name, value in content.items() if name not in ("num_return_sequences", "cache_implementation")
    }
    folder = folder_with(small, tmp_path, readable)
    theirs = on_torch(folder)
    (folder / "generation_config.json").write_text(json.dumps(content))
    ours = GPT2.from_pretrained(folder, backend="numpy")
    for seed, prompt in enumerate(PROMPTS):
        expected = theirs.implementation.transformers_generate(prompt, seed, generation_config=True, **at_most)[0]
        asked = {"generation_config": True} | at_most | ({"seed": seed} if content.get("do_sample") else {})
        out = ours.generate(prompt, **asked)
        assert out.ids == expected
        if not (folder_eos := content.get("eos_token_id")):
            plain = theirs.implementation.transformers_generate(prompt, eos_token_id=folder_eos, max_new_tokens=12)[0]
            assert ours.generate(prompt, max_new_tokens=12).ids == plain, "never in silence"


def test_options_that_are_given_win() -> None:
    fields = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_length": 20, "num_return_sequences": 4}
    assert asked(fields, {"generation_config": True, "temperature": 0.5}, 6) == {
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_new_tokens": 14,
    }
    assert asked(fields, {"generation_config": True, "do_sample": False, "max_new_tokens": 3}) == {
        "do_sample": False,
        "max_new_tokens": 3,
    }
    assert asked(fields, {"generation_config": False, "seed": 1}) == asked(fields, {"seed": 1}) == {"seed": 1}
    assert "num_return_sequences" not in settings(fields)
    beside = {"num_assistant_tokens": 3, "max_matching_ngram_size": 2, "num_beam_groups": 2, "diversity_penalty": 0.5}
    assert asked(beside, {"generation_config": True}) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"generation_config\.json must hold a JSON object, got list"),
        ({"eos_token_id": "x"}, r"generation_config\.json: eos_token_id must be a token id, got 'x'"),
        ({"eos_token_id": [1, None]}, "eos_token_id must be a token id"),
        ({"bos_token_id": True}, "bos_token_id must be a token id, got True"),
        ({"token_healing": "yes"}, "token_healing must be True or False, got 'yes'"),
        ({"max_length": 2}, r"max_length must be a whole number above the prompt's length \(3\), got 2"),
        ({"max_length": "x"}, "max_length must be a whole number"),
        ({"do_sample": True, "temperature": -1}, "temperature .* got -1"),
    ],
)
def test_what_cannot_be_is_named(content: Any, message: str, small: Path, tmp_path: Path) -> None:
    model = GPT2.from_pretrained(folder_with(small, tmp_path, content), backend="numpy")
    with pytest.raises(ValueError, match=message) as error:
        model.generate(PROMPTS[0], generation_config=True)
    assert "\n" not in str(error.value)


def test_an_empty_prompt_starts_from_its_bos(small: Path, tmp_path: Path) -> None:
    model = GPT2.from_pretrained(folder_with(small, tmp_path, {"bos_token_id": 5}), backend="numpy")
    assert model.prompt_ids([]) == [5]
    model = GPT2.from_pretrained(folder_with(small, tmp_path, {}, bos_token_id=50256), backend="numpy")
    assert model.generate(PROMPTS[0], max_new_tokens=1).ids
    with pytest.raises(ValueError, match=r"bos_token_id must be between 0 and 96 .*, got 50256"):
        model.prompt_ids([])


def test_a_pad_token_counts(small: Path, tmp_path: Path) -> None:
    model = GPT2.from_pretrained(folder_with(small, tmp_path, {"pad_token_id": 7}), backend="numpy")
    assert model.options({})[1].pad_token_id == 7
    assert model.options({"pad_token_id": 8})[1].pad_token_id == 8


def test_info_shows_it_and_the_command_line_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tales = GPT2.from_pretrained(backend="numpy")
    shutil.copytree(tales.folder, tmp_path, dirs_exist_ok=True)
    content = {"do_sample": True, "top_k": 3, "max_new_tokens": 4, "eos_token_id": list(tales.eos_token_ids)}
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    main(["info", "--model", str(tmp_path), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["generation_config"] == {"do_sample": True, "top_k": 3, "max_new_tokens": 4}
    main(["info", "--model", str(tmp_path)])
    assert "do_sample True, top_k 3, max_new_tokens 4 (used with --generation-config)" in capsys.readouterr().out
    model = GPT2.from_pretrained(tmp_path, backend="numpy")
    for flags, options in (
        ([], {"max_new_tokens": 50}),
        (["--generation-config", "--seed", "2"], {"seed": 2, "generation_config": True}),
        (
            ["--generation-config", "--seed", "2", "-n", "2"],
            {"seed": 2, "generation_config": True, "max_new_tokens": 2},
        ),
    ):
        command = ["generate", "One day", "--model", str(tmp_path), "--backend", "numpy", "--json", *flags]
        out = CliRunner().invoke(cli, command)
        assert json.loads(out.output)["ids"] == model.generate("One day", **options).ids, flags


def test_parity_compares_with_them_on(small: Path, tmp_path: Path) -> None:
    content = {"do_sample": True, "temperature": 0.8, "eos_token_id": [3, 9]}
    folder = folder_with(small, tmp_path, content)
    ours, theirs, truth = GPT2.from_pretrained(folder), on_torch(folder), on_torch(folder, dtype="float64")
    cases = own(ours)
    assert [case.name for case in cases] == ["greedy, to the end-of-text", "generation_config.json"]
    for case in [*cases, Case("greedy")]:
        check = tokens(case.name, ours, theirs, truth, PROMPTS[0], case, 1, "cpu")
        assert check.verdict == "same", check
    (folder / "generation_config.json").write_text(json.dumps(content | {"temperature": 5.0, "eos_token_id": 3}))
    other = GPT2.from_pretrained(folder)
    assert not ends(other, theirs).passed
    assert not tokens(
        "other", other, theirs, truth, PROMPTS[0], Case("own", {"generation_config": True}), 1, "cpu"
    ).passed
