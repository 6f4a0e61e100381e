"""The searches on the command line: one run of each, the trace's file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.cli.generate import generate

PROMPT = "One day"


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (
            "--num-beams 4 --num-beam-groups 2 --diversity-penalty 1",
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        ),
        (
            "--num-beams 4 --force-words=\u00a0king --force-words=\u00a0queen|\u00a0lady",
            {"num_beams": 4, "force_words_ids": [" king", [" queen", " lady"]]},
        ),
        (
            "--num-beams 3 --do-sample --stochastic-beams --seed 3",
            {"num_beams": 3, "do_sample": True, "stochastic_beams": True, "seed": 3},
        ),
        ("--penalty-alpha 0.6 --top-k 4", {"penalty_alpha": 0.6, "top_k": 4}),
        ("--dola-layers high", {"dola_layers": "high"}),
        ("--dola-layers 0,1", {"dola_layers": [0, 1]}),
        ("--do-sample --best-of 4 --seed 3", {"do_sample": True, "best_of": 4, "seed": 3}),
        ("--num-beams 3 --early-stopping never", {"num_beams": 3, "early_stopping": "never"}),
    ],
)
def test_every_search(model: GPT2, arguments: str, options: dict) -> None:
    words = [word.replace("\u00a0", " ") for word in arguments.split(" ")]
    done = CliRunner().invoke(cli, ["generate", PROMPT, "-n", "8", "--json", *words])
    assert done.exception is None, done.output
    assert json.loads(done.stdout)["ids"] == model.generate(PROMPT, max_new_tokens=8, **options).ids
    shown = CliRunner().invoke(cli, ["generate", PROMPT, "-n", "8", *words]).stdout
    assert shown.rstrip("\n") == (PROMPT + model.generate(PROMPT, max_new_tokens=8, **options).text).rstrip("\n")


def test_the_trace_is_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    arguments = ["generate", PROMPT, "-n", "5", "--num-beams", "3", "--json", "--trace", str(file)]
    done = CliRunner().invoke(cli, arguments)
    found, steps = json.loads(done.stdout), [json.loads(line) for line in file.read_text().splitlines()]
    assert [step["length"] for step in steps] == [1, 2, 3, 4, 5]
    assert steps[-1]["stopped"]
    assert steps[-1]["pool"][0]["ids"] == found["ids"]
    assert steps[-1]["pool"][0]["text"] == found["text"]
    assert {"ids", "text", "score", "finish_reason"} == set(steps[0]["candidates"][0])


def test_the_trace_of_single_tokens(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    arguments = ["generate", PROMPT, "-n", "4", "--do-sample", "--top-k", "5", "--seed", "1", "--trace", str(file)]
    plain = CliRunner().invoke(cli, arguments[:-2]).stdout
    assert CliRunner().invoke(cli, arguments).stdout == plain
    steps = [json.loads(line) for line in file.read_text().splitlines()]
    assert [step["length"] for step in steps] == [1, 2, 3, 4]
    assert PROMPT + "".join(step["text"] for step in steps) == plain.rstrip("\n")
    assert {(change["option"], change["left"]) for step in steps for change in step["changes"]} == {("top_k", 5)}


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ("--do-sample --top-k 5 --seed 1", ["step  token", "top_k −4,091", "→ 5 left", "chosen at"]),
        ("--do-sample --top-k 5 --num-return-sequences 2 --seed 1", ["text  step", "   2     4"]),
        (
            "--num-beams 2 --no-repeat-ngram-size 1",
            ["step 4 · 4 candidates · 2 ended", "stopped:", "processors on the best beam: no_repeat_ngram_size −"],
        ),
        ("--do-sample --best-of 2 --seed 1", ["   -"]),
        ("--num-beams 2 --do-sample --stochastic-beams --seed 1", ["   -"]),
    ],
)
def test_steps_for_people(arguments: str, lines: list[str]) -> None:
    words = ["generate", PROMPT, "-n", "4", *arguments.split()]
    plain, done = CliRunner().invoke(cli, words).stdout, CliRunner().invoke(cli, [*words, "--explain"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{plain}\n")
    for line in lines:
        assert line in done.stdout


def test_help_lists_every_search_with_an_example() -> None:
    shown = " ".join(CliRunner().invoke(generate, ["--help"]).stdout.split())
    for heading in ("Beam search:", "Contrast:", "Best of many:"):
        assert heading in shown
        assert "Example: gpt2-np generate" in shown.split(heading)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dola-layers", "middle"], "must be low, high, or layers separated by commas, got 'middle'"),
        (["--early-stopping", "soon"], "must be true, false or never, got 'soon'"),
        (["--explain", "--json"], "--explain prints a table, --json nothing but JSON"),
        (["--exhaustive", "-n", "3"], "no more than 262144 texts"),
        (["--force-words", " king"], "force_words_ids acts only in beam search"),
    ],
)
def test_what_can_t_be_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["generate", PROMPT, *arguments])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
