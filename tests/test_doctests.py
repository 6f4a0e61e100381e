"""The examples in docstrings run, and the names that people call first have one."""

from __future__ import annotations

import doctest
import importlib
import runpy
from pathlib import Path
from typing import Any

import pytest

import decoders
from gpt2_np import GPT2, gradients, training
from gpt2_np.internals import attribution, jacobian_lens

ROOT = Path(__file__).parent.parent
MODULES = runpy.run_path(str(ROOT / "scripts" / "build_reference.py"))["modules"]()
SHOWN = [name for name, module in MODULES.items() if ">>> " in module.path.read_text(encoding="utf-8")]
FACES: list[Any] = [
    GPT2.from_pretrained,
    GPT2.__call__,
    GPT2.generate,
    GPT2.stream,
    GPT2.score,
    GPT2.rank_choices,
    GPT2.run_with_cache,
    GPT2.run_with_edits,
    GPT2.run_with_gradients,
    GPT2.with_edits,
    GPT2.with_params,
    GPT2.save_pretrained,
    decoders.Options,
    decoders.generate,
    decoders.stream,
    gradients.cross_entropy,
    gradients.logit_difference,
    gradients.log_probability,
    gradients.kl_divergence,
    gradients.check_gradient,
    attribution.nodes,
    attribution.edges,
    attribution.inputs,
    jacobian_lens.fit,
    training.AdamW,
    training.train,
    training.loss_and_gradients,
]


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model is the same object in every example: frozen as it is, only time is saved."""
    load, kept = GPT2.from_pretrained, {}

    def from_pretrained(name: Any = None, **options: Any) -> GPT2:
        key = (name, *options.items())
        if name not in (None, "tales"):
            return load(name, **options)
        if key not in kept:
            kept[key] = load(name, **options)
        return kept[key]

    monkeypatch.setattr(GPT2, "from_pretrained", from_pretrained)


def test_the_first_names_have_an_example() -> None:
    assert [one.__qualname__ for one in FACES if ">>> " not in (one.__doc__ or "")] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the server's packages
@pytest.mark.parametrize("name", SHOWN)
def test_the_examples_of_a_module(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    finder, runner, told = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(), []
    for test in finder.find(module, name):
        runner.run(test, out=told.append)
    assert not runner.failures, "".join(told)
    assert runner.tries
