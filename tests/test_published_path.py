"""The way to the published figures, end to end, without the official weights and data sets.

The harness's own tasks are run on stand-in data, on a random checkpoint that lies in the hub's cache as the official
one would, under its name; and compared with the harness's ``hf`` class. ``.ci/evaluate`` runs this.
"""

from __future__ import annotations

import json
import os
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2
from gpt2_np.evaluation import published
from gpt2_np.weights import hub

if find_spec("lm_eval") is None:
    pytest.skip("lm_eval isn't installed: .ci/evaluate runs this in an environment with it", allow_module_level=True)
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import datasets
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from reference import reference_model
    from safetensors.numpy import save_file

    from gpt2_np.evaluation import tasks

pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness and its data sets
SENTENCES = [
    "The old king went to the forest and there he met a wolf.",
    "Once upon a time a poor miller had three sons and a cat.",
    'She said: "What do you want, my dear fisherman?" He wept.',
    "The youngest brother found a golden ring in the well.",
]
DATA = {
    "EleutherAI/lambada_openai": [{"text": f"{one} {one}".rstrip(".")} for one in SENTENCES],
    "Rowan/hellaswag": [
        {
            "activity_label": "Going to the mill",
            "ctx_a": one,
            "ctx_b": "then he",
            "endings": [f"{word} home. [title] It was late." for word in ("went", "ran", "rode", "was carried")],
            "label": str(number % 4),
        }
        for number, one in enumerate(SENTENCES)
    ],
    "EleutherAI/wikitext_document_level": [
        {"page": f" = A tale = \n\n {' '.join(SENTENCES[number:] * 3)} @-@ the end . \n"} for number in range(3)
    ],
}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a random model as "gpt2": names without a prefix, masks among the tensors, BPE as two files."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository, revision = tmp_path / f"models--{hub.OFFICIAL['gpt2'].replace('/', '--')}", "0" * 40
    folder = repository / "snapshots" / revision
    for made in (folder, repository / "refs", repository / ".no_exist" / revision):
        made.mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    for name in hub.EXTRAS:
        (repository / ".no_exist" / revision / name).touch()
    model = reference_model(vocab_size=4096, n_positions=96)
    tensors = {
        name.removeprefix("transformer."): tensor.numpy()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    mask = np.tril(np.ones((1, 1, 96, 96), np.float32))
    tensors |= {f"h.{layer}.attn.bias": mask for layer in range(model.config.n_layer)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    bpe = json.loads((hub.locate("tales") / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = bpe["model"]["vocab"] | {one["content"]: one["id"] for one in bpe["added_tokens"]}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [one if isinstance(one, str) else " ".join(one) for one in bpe["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


def test_every_figure_is_run_from_the_name_to_the_verdict(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(path: str, name: str | None = None, **_: Any) -> Any:
        data = datasets.Dataset.from_list(DATA[path])
        return datasets.DatasetDict(dict.fromkeys(("train", "validation", "test"), data))

    def three(include_path: Any, include_defaults: bool) -> Any:
        """The harness's own files of these tasks; to look through all of them takes a minute."""
        own = Path(lm_eval.__file__).parent / "tasks"
        folders = [str(own / name) for name in ("lambada", "hellaswag", "wikitext")]
        return TaskManager(include_path=folders, include_defaults=False)

    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    monkeypatch.setattr(tasks, "TaskManager", three)
    monkeypatch.setattr(tasks, "simple_evaluate", partial(tasks.simple_evaluate, bootstrap_iters=0))
    torch.set_num_threads(1)
    model = GPT2.from_pretrained("gpt2")
    assert model.folder == cached
    checks = list(published.check("gpt2", published.on_model(model)))
    theirs = HFLM(pretrained=str(cached), device="cpu", dtype="float32", batch_size=2)
    expected = tasks.run(theirs, list(dict.fromkeys(figure.task for figure in published.HARNESS)))["results"]
    assert [check.verdict for check in checks] == ["mismatch"] * 5  # nothing was learnt
    for check, figure in zip(checks, published.HARNESS, strict=True):
        right = float(expected[figure.task][figure.metric])
        assert check.name == f"{figure.task} {figure.metric}"
        assert float(check.note.split(" here")[0]) == pytest.approx(right, rel=1e-4, abs=1e-4)
        assert np.isfinite(right)
