"""`HarnessModel` beside lm-evaluation-harness's own ``hf`` class, on the same weights.

It needs lm_eval, on which no other test depends: ``.ci/evaluate`` makes an environment with it and runs this.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sqlite3
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2
from gpt2_np.cli import main
from gpt2_np.weights.hub import locate

if find_spec("lm_eval") is None:
    pytest.skip("lm_eval isn't installed: .ci/evaluate runs this in an environment with it", allow_module_level=True)
# Only behind the skip: where the harness isn't, other tests of this process need a hub.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import datasets
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import Registry, get_model
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from reference import reference_model, save

    from gpt2_np.evaluation import HarnessModel
    from gpt2_np.evaluation.tasks import manager_of, rows, run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness and its data sets
ROOT = Path(__file__).parent.parent
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "harness_tasks.py"))
TASKS = list(SCRIPT["TASKS"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks, and an empty cache for their data."""
    made = tmp_path_factory.mktemp("tasks")
    SCRIPT["write"](made, 140)
    datasets.config.HF_DATASETS_CACHE = made / "cache"
    return made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the bundled one's tokenizer and a context that many requests don't fit."""
    made = save(reference_model(vocab_size=4096, n_positions=96), tmp_path_factory.mktemp("tiny"))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(locate("tales") / name, made / name)
    return made


@pytest.fixture(scope="module")
def sides(tiny: Path) -> tuple[HarnessModel, Any]:
    """Ours and theirs on the tiny model."""
    return HarnessModel(str(tiny)), theirs(tiny)


def theirs(folder: Path, **more: Any) -> Any:
    """The harness's own class."""
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", **({"batch_size": 4} | more))


def ask(model: Any, kind: str, *requests: tuple[Any, ...]) -> list[Any]:
    """A model's answers to requests."""
    instances = [Instance(kind, {}, request, 0, ("test", 0, 1)) for request in requests]
    answers: list[Any] = getattr(model, kind)(instances, disable_tqdm=True)
    return answers


def compared(ours: Any, other: Any, folder: Path, tasks: list[str], limit: int | None = None) -> int:
    """How many requests of tasks have the same answers: within 1e-4, and equal in all that is discrete."""
    manager = manager_of(tasks, [str(folder)])
    found = [
        simple_evaluate(model=model, tasks=tasks, task_manager=manager, bootstrap_iters=0, limit=limit)
        for model in (ours, other)
    ]
    count = 0
    for task in tasks:
        for mine, their in zip(*(side["samples"][task] for side in found), strict=True):
            assert mine["arguments"] == their["arguments"]
            for (answer,), (right,) in zip(mine["resps"], their["resps"], strict=True):
                count += 1
                if isinstance(right, str):
                    assert answer == right
                elif isinstance(right, tuple):
                    assert answer[0] == pytest.approx(right[0], abs=1e-4)
                    assert answer[1] == right[1]
                else:  # hundreds of tokens, which theirs adds up in float32
                    assert answer == pytest.approx(right, abs=1e-4, rel=1e-6)
        for metric, value in found[1]["results"][task].items():
            if metric.startswith(("acc", "exact_match")) and "stderr" not in metric:
                assert found[0]["results"][task][metric] == value, metric
            elif isinstance(value, float):
                assert found[0]["results"][task][metric] == pytest.approx(value, rel=1e-4), metric
    return count


def test_a_thousand_requests_of_five_tasks_are_answered_as_hf_answers_them(sides: Any, folder: Path) -> None:
    torch.set_num_threads(1)
    assert compared(*sides, folder, TASKS) >= 1000


def test_the_bundled_model_answers_as_hf_does(folder: Path) -> None:
    torch.set_num_threads(1)
    assert compared(HarnessModel(), theirs(locate("tales")), folder, TASKS, limit=7) == 2 * 4 * 7 + 3 * 7


EDGES = [
    ("", "The king"),
    ("The king ", "sat on"),
    ("The king", " sat on"),
    ("The king \n\n ", " sat"),
    ("The king", "dom was large"),
    ("é — ü", " 🜁 x"),
    ("The king was old. " * 60, " The end." * 5),
    ("<|endoftext|>The king", " sat"),
    ("The", " king" * 90),
]


def test_joins_of_texts_are_those_of_hf(sides: Any) -> None:
    for (mine, greedy), (their, best) in zip(*(ask(one, "loglikelihood", *EDGES) for one in sides), strict=True):
        assert mine == pytest.approx(their, abs=1e-4)
        assert greedy == best
    texts = [("The king",), ("The king was old. " * 70,), (" ",), ("<|endoftext|>a",)]
    for mine, their in zip(*(ask(one, "loglikelihood_rolling", *texts) for one in sides), strict=True):
        assert mine == pytest.approx(their, abs=1e-4, rel=1e-6)


def test_what_hf_fails_at_has_an_answer(sides: Any) -> None:
    ours, other = sides
    model = ours.model
    for pair in ((" \n", " The king"), ("The", ""), ("", "")):
        with pytest.raises((AssertionError, IndexError)):
            ask(other, "loglikelihood", pair)
    blank, nothing, empty = ask(ours, "loglikelihood", (" \n", " The king"), ("The", ""), ("", ""))
    assert blank[0] == pytest.approx(-model.score(" \n The king").nll, abs=1e-4)
    assert nothing == empty == (0.0, True)
    before, ids = ours.pair("The kin", "g")  # " king" is one token, " kin" is another
    assert [*before, *ids] == model.tokenizer.encode("The king")
    assert ask(ours, "loglikelihood_rolling", ("",)) == [0.0]
    with pytest.raises(ValueError, match="a continuation must have at most 96 tokens"):
        ask(ours, "loglikelihood", ("The", " king" * 200))


GENERATIONS: list[dict[str, Any]] = [
    {"until": ["\n\n", "."], "max_gen_toks": 20},
    {"until": "the", "max_new_tokens": 20, "do_sample": False},
    {"until": ["zzz"], "max_tokens": 9, "temperature": 0.0, "top_p": 0.9, "top_k": 5},
    {"until": [], "max_gen_toks": 12, "do_sample": False, "repetition_penalty": 1.3},
    {"until": ["q"], "max_gen_toks": 12, "no_repeat_ngram_size": 2, "num_beams": 1},
]


@pytest.mark.parametrize("arguments", GENERATIONS, ids=json.dumps)
def test_texts_are_written_and_cut_as_by_hf(sides: Any, arguments: dict[str, Any]) -> None:
    contexts = ["The king", "Once upon a time there was a wolf.\n", "The king was old. " * 30, "A"]
    asked = [(context, dict(arguments)) for context in contexts]
    mine, their = (ask(one, "generate_until", *asked) for one in sides)
    assert mine == their


@pytest.mark.parametrize("arguments", [{"temperature": 0.8}, {"do_sample": True, "temperature": 1.2, "top_p": 0.9}])
def test_samples_are_those_of_torch_s_stream(sides: Any, arguments: dict[str, Any]) -> None:
    """The first request is seeded as the harness seeds torch; also by transformers' top 50, which no one named."""
    asked = ("Once upon a time", {"until": ["zz"], "max_gen_toks": 16, **arguments})
    ours, other = sides
    torch.manual_seed(1234)
    (right,) = ask(other, "generate_until", asked)
    mine = ask(ours, "generate_until", asked, ("The king", asked[1]), asked)
    assert mine[0] == right
    assert mine[0] != mine[2]  # the same request again is another sample
    assert mine[1:] == ask(ours, "generate_until", ("A", asked[1]), ("The king", asked[1]), asked)[1:]


def test_a_stop_text_must_be_new(sides: Any) -> None:
    """What the context ends with is no part of a stop text."""
    model = sides[0].model
    context = "The king" + model.generate("The king", max_new_tokens=3).text
    end, following = context[-1], model.generate(context, max_new_tokens=1).text
    asked = (context, {"until": [end + following], "max_gen_toks": 8})
    assert following
    assert ask(sides[0], "generate_until", asked) == ask(sides[1], "generate_until", asked) != [""]


def test_answers_are_kept_and_an_evaluation_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [("The king", f" {one}") for one in ("was", "is", "had")]
    first = HarnessModel(tiny, cache=tmp_path / "answers")
    expected = ask(first, "loglikelihood", *pairs)
    drawn = ("The", {"until": [], "max_gen_toks": 3, "do_sample": True, "temperature": 1.0})
    greedy = ("The", {"until": [], "max_gen_toks": 3})
    text = ask(first, "generate_until", greedy, drawn)[0]
    with sqlite3.connect(tmp_path / "answers") as file:
        assert file.execute("SELECT COUNT(*) FROM answers").fetchone() == (4,)  # not the one that was drawn
    file.close()
    again, asked = HarnessModel(tiny, cache=tmp_path / "answers"), []
    score = again._score
    monkeypatch.setattr(again, "_score", lambda pairs, told: asked.append(len(pairs)) or score(pairs, told))
    assert ask(again, "loglikelihood", *pairs, ("The", " king"))[:3] == expected
    assert asked == [1]
    assert ask(again, "generate_until", greedy) == [text]
    other = HarnessModel(tiny, dtype="int8", cache=tmp_path / "answers")
    assert ask(other, "loglikelihood", *pairs) != expected


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"device": "cuda"}, "device must be 'cpu'"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"batch_size": "many"}, "batch_size must be a whole number, at least 1, got 'many'"),
        ({"max_length": 97}, "max_length must be a whole number, between 1 and 96, got 97"),
        ({"max_gen_toks": True}, "max_gen_toks must be a whole number, at least 1, got True"),
        ({"prefix_token_id": 5000}, "ids must be between 0 and 4095, got 5000"),
    ],
)
def test_arguments_are_checked_at_once(tiny: Path, arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        HarnessModel(tiny, **arguments)


def test_requests_that_find_no_room_are_refused(sides: Any) -> None:
    with pytest.raises(ValueError, match=r"max_gen_toks must be between 1 and 95, .* got 256"):
        ask(sides[0], "generate_until", ("The king", {"until": []}))
    with pytest.raises(ValueError, match="there is no option 'top_q'"):
        ask(sides[0], "generate_until", ("The king", {"until": [], "max_gen_toks": 3, "top_q": 1}))
    with pytest.raises(ValueError, match="a base model, which knows no chat format"):
        sides[0].apply_chat_template([])


def test_a_shorter_context_is_that_of_hf(tiny: Path) -> None:
    models = [HarnessModel(tiny, max_length=40, batch_size=3), theirs(tiny, max_length=40)]
    asked = [("The king was old. " * 20, " The end"), ("The", " king")]
    mine, their = (ask(one, "loglikelihood", *asked) for one in models)
    np.testing.assert_allclose([one[0] for one in mine], [one[0] for one in their], atol=1e-4)
    mine, their = (ask(one, "loglikelihood_rolling", ("The king was old. " * 20,)) for one in models)
    assert mine[0] == pytest.approx(their[0], abs=1e-4, rel=1e-6)


def test_the_command_line_runs_tasks(
    folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def few(include_path: Any, include_defaults: bool) -> TaskManager:
        """The harness's own tasks take a minute to look through."""
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("gpt2_np.evaluation.tasks.TaskManager", few)
    common = ["--model", str(tiny), "--include-path", str(folder), "--limit", "6"]
    main(["evaluate", "--tasks", "tale_choices,tale_endings", *common, "--json", "--cache", str(tmp_path / "answers")])
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    results = run(HarnessModel(tiny), ["tale_choices", "tale_endings"], include=[folder], limit=6)
    assert [row["task"] for row in shown] == ["tale_choices", "tale_endings"]
    assert json.loads(json.dumps(rows(results))) == shown
    assert shown[0]["documents"] == 6
    main(["evaluate", "--tasks", "tale_choices", *common])
    assert f"|{shown[0]['results']['acc,none']:.4f}|" in capsys.readouterr().out.replace(" ", "")
    for arguments, error in (
        (["--tasks", "tale_nothing"], "error: there is no task 'tale_nothing'"),
        (
            ["--tasks", "tale_endings", "--gen-kwargs", "max_gen_toks=500"],
            "error: max_gen_toks must be between 1 and 95",
        ),
        (["--tasks", "tale_endings", "--gen-kwargs", "many"], "error: --gen-kwargs must be K=V,K=V, got 'many'"),
        (["--tasks", "broken"], "error: a task can't be run: "),
    ):
        (folder / "broken.yaml").write_text("task: broken\noutput_type: multiple_choice\ndataset_path: json\n")
        with pytest.raises(SystemExit) as left:
            main(["evaluate", *arguments, *common])
        told = capsys.readouterr().err
        (folder / "broken.yaml").unlink()
        assert left.value.code == 2
        assert told.startswith(error)
        assert told.count("\n") == 1


def test_the_harness_finds_the_model_by_name() -> None:
    assert get_model("gpt2_np") is HarnessModel
    text = (ROOT / "pyproject.toml").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("gpt2_np = ")]
    value = line.split('"')[1]
    assert '[project.entry-points."lm_eval.models"]' in text.split(line)[0].splitlines()[-1]
    registry: Any = Registry("model")  # as its later releases fill theirs
    registry.register("gpt2_np", target=EntryPoint("gpt2_np", value, "lm_eval.models"))
    assert registry.get("gpt2_np") is HarnessModel


def test_the_device_that_the_harness_passes_where_nobody_names_one_is_passed_over(tiny: Path) -> None:
    more = {"batch_size": 2, "max_batch_size": None, "device": "cuda:0"}
    for made in (
        HarnessModel.create_from_arg_obj({"pretrained": str(tiny), "dtype": "int8"}, more),
        HarnessModel.create_from_arg_string(f"pretrained={tiny},dtype=int8", more),
    ):
        assert (made.rows, made.get_model_info()["model_dtype"]) == (2, "int8")


@pytest.mark.slow
def test_the_harness_s_own_command_line_runs_the_model(folder: Path, tiny: Path, tmp_path: Path) -> None:
    """It looks through all of its own tasks first, which takes a minute or more."""
    command = [sys.executable, "-m", "gpt2_np.evaluation", "run", "--model", "gpt2_np", "--tasks", "tale_words"]
    command += ["--model_args", f"pretrained={tiny},dtype=int8", "--include_path", str(folder), "--limit", "3"]
    given = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=given)
    assert "gpt2_np ({" in done.stdout, done.stderr
    assert "tale_words" in done.stdout


def test_its_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gpt2_np.evaluation.__main__ import main as as_the_harness

    def refuses() -> None:
        HarnessModel("nothing/here")

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", refuses)
    with pytest.raises(SystemExit) as left:
        as_the_harness()
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1


def test_a_model_on_torch_can_be_judged_too(tiny: Path, sides: Any) -> None:
    from gpt2_np.text.gpt2 import on_torch

    mine, their = (ask(one, "loglikelihood", *EDGES[:6]) for one in (HarnessModel(on_torch(tiny)), sides[1]))
    np.testing.assert_allclose([one[0] for one in mine], [one[0] for one in their], atol=1e-4)
    assert isinstance(GPT2.from_pretrained(tiny), GPT2)
