"""lm-evaluation-harness against the server: needs `pip install 'lm_eval[api]'`, and `pytest -m slow` to run."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import running

from gpt2_np import GPT2

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WORDS = "king sea old forest wolf gold bread night road house child water fire tree bird".split()
TASKS = {
    "choices": """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
target_delimiter: ""
metric_list: [{metric: acc}]
""",
    "texts": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "x"
generation_kwargs: {until: ["\\n", "the"], max_gen_toks: 24}
metric_list: [{metric: exact_match}]
""",
}


def test_the_harness_gets_the_model_s_own_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-likelihoods within 1e-4, the same greedy answers and texts, with the tokenizer that the server offers."""
    lm_eval = pytest.importorskip("lm_eval", reason="needs the harness: pip install lm_eval")
    from lm_eval.tasks import TaskManager

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    chance = random.Random(0)
    documents = [
        {
            "q": "" if number % 9 == 0 else f"The {chance.choice(WORDS)} and the {chance.choice(WORDS)} went to the",
            "choices": [" " + " ".join(chance.sample(WORDS, chance.randint(1, 3))) for _ in range(3)],
            "gold": chance.randrange(3),
        }
        for number in range(40)
    ]
    (tmp_path / "documents.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    for name, rest in TASKS.items():
        data = f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'documents.jsonl'}}}}}"
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ndataset_path: json\n{data}\ntest_split: test{rest}")
    model = GPT2.from_pretrained()
    with running(model) as client:
        address = f"http://127.0.0.1:{client.port}/v1/completions"
        found = lm_eval.simple_evaluate(
            model="local-completions",
            model_args=f"model=tales,base_url={address},max_length=512,num_concurrent=8",
            tasks=list(TASKS),
            task_manager=TaskManager(include_path=str(tmp_path)),
            log_samples=True,
            bootstrap_iters=0,
        )["samples"]
    for sample in found["choices"]:
        for (before, choice), ((logprob, greedy),) in zip(sample["arguments"], sample["resps"], strict=True):
            expected, best = likelihood(model, before, choice)
            assert float(logprob) == pytest.approx(expected, abs=1e-4)
            assert str(greedy) == str(best)
    for sample in found["texts"]:
        text = model.generate(sample["doc"]["q"], max_new_tokens=24).text
        for stop in ("\n", "the"):
            text = text.split(stop)[0]
        assert sample["resps"][0][0] == text


def test_the_server_the_class_and_hf_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same requests of four tasks over HTTP, by `HarnessModel`, and by the harness's own class on torch.

    Left out are texts that don't fit the context, which the harness cuts elsewhere for servers than for `hf`.
    """
    lm_eval = pytest.importorskip("lm_eval", reason="needs the harness: pip install 'lm_eval[api]'")
    pytest.importorskip("accelerate", reason="the harness's hf needs accelerate")
    import datasets
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from gpt2_np.evaluation import HarnessModel
    from gpt2_np.weights.hub import locate

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "harness_tasks.py"))["write"](tmp_path, 40)
    tasks = ["tale_choices", "tale_words", "tale_texts", "tale_endings"]

    def samples(model: Any, **more: Any) -> dict[str, list[dict[str, Any]]]:
        manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
        settings = {"task_manager": manager, "log_samples": True, "bootstrap_iters": 0}
        return lm_eval.simple_evaluate(model=model, tasks=tasks, **settings, **more)["samples"]

    model = GPT2.from_pretrained()
    with running(model) as client:
        address = f"http://127.0.0.1:{client.port}/v1/completions"
        served = samples(
            "local-completions", model_args=f"model=tales,base_url={address},max_length=513,num_concurrent=8"
        )
    ours = samples(HarnessModel(model))
    theirs = samples(HFLM(pretrained=str(locate("tales")), device="cpu", dtype="float32", batch_size=4))
    compared = dict.fromkeys(tasks, 0)
    for task in tasks:
        for three in zip(served[task], ours[task], theirs[task], strict=True):
            assert three[0]["arguments"] == three[1]["arguments"] == three[2]["arguments"]
            for asked, *answers in zip(three[0]["arguments"], *(one["resps"] for one in three), strict=True):
                if len(model.tokenizer.encode(asked[0])) > 500:
                    continue
                compared[task] += 1
                over_http, by_class, by_hf = (number_and_flag(one) for (one,) in answers)
                assert over_http[1] == by_class[1] == by_hf[1]
                if over_http[0] is not None:
                    assert over_http[0] == pytest.approx(by_class[0], abs=1e-4, rel=1e-6)
                    assert over_http[0] == pytest.approx(by_hf[0], abs=1e-4, rel=1e-6)
    assert compared["tale_choices"] == 160
    assert compared["tale_words"] == 40
    assert min(compared.values()) >= 9


def number_and_flag(answer: Any) -> tuple[float | None, Any]:
    """An answer's log-probability, where it has one, and what must be equal."""
    if isinstance(answer, str):
        return None, answer
    if isinstance(answer, (tuple, list)):
        return float(answer[0]), str(answer[1])
    return float(answer), None


def likelihood(model: GPT2, before: str, choice: str) -> tuple[float, bool]:
    """The log-probability of a choice behind a text, as the harness cuts them, and whether it is the greedy answer."""
    spaces = before[len(before.rstrip()) :]
    before, choice = before.rstrip(), spaces + choice
    known = model.tokenizer.encode(before) if before else [0]
    whole: Any = model.tokenizer.encode(before + choice)
    ids = whole[len(known) :] if before else whole
    logits = model([*known, *ids])[len(known) - 1 : -1].astype(np.float64)
    logprobs = logits - logits.max(-1, keepdims=True)
    logprobs -= np.log(np.exp(logprobs).sum(-1, keepdims=True))
    return float(logprobs[np.arange(len(ids)), ids].sum()), bool((logits.argmax(-1) == ids).all())
