"""Finite weights whose activations leave float32: one error that names the layer, from all that gives numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2
from gpt2_np.cli import main
from gpt2_np.cli.plain import dumps
from gpt2_np.gradients import cross_entropy
from gpt2_np.model.params import Params

RULE = "the model's activations overflow float32 in layer 1"


def overflowing(backend: str = "numba", dtype: str = "float32", layer: int = 1) -> GPT2:
    """The bundled model with weights of one layer so large that its output is infinite."""
    model = GPT2.from_pretrained(backend="numpy")
    p = model.params.h[layer]
    huge = p.mlp.c_proj._replace(weight=np.full(p.mlp.c_proj.weight.shape, 3e38, np.float32))
    blocks = list(model.params.h)
    blocks[layer] = p._replace(mlp=p.mlp._replace(c_proj=huge))
    params: Params = model.params._replace(h=tuple(blocks))
    if dtype != "float32":
        from gpt2_np.weights.quantize import quantize

        params = quantize(params, dtype)
    return GPT2(params, model.config, folder=model.folder, backend=backend)


@pytest.mark.parametrize(
    ("backend", "dtype"), [("numba", "float32"), ("numpy", "float32"), ("numba", "int8"), ("numba", "int4")]
)
def test_generation_and_scores_name_the_layer(backend: str, dtype: str) -> None:
    model = overflowing(backend, dtype)
    calls: list[Any] = [
        lambda: model.generate("One day", max_new_tokens=2),
        lambda: model.generate(["One day", "a"], max_new_tokens=2),
        lambda: model.generate("One day", max_new_tokens=2, num_beams=2),
        lambda: model.generate("One day", max_new_tokens=2, do_sample=True, seed=1),
        lambda: list(model.stream("One day", max_new_tokens=2)),
        lambda: model.score("One day"),
        lambda: model.rank_choices("One day", [" a", " b"], by="byte"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"^{RULE}$"):
            call()


def test_studies_name_the_layer_and_a_plain_call_gives_what_there_is() -> None:
    from gpt2_np.internals.lens import logit_lens
    from gpt2_np.internals.page import inspect_page

    model = overflowing("numpy")
    for call in (
        lambda: model.run_with_cache([1, 2]),
        lambda: model.run_with_gradients([1, 2], cross_entropy()),
        lambda: model.run_with_gradients([[1, 2], [1, 2, 3]], cross_entropy(), parameters=True),
        lambda: logit_lens(model, [1, 2]),
        lambda: inspect_page(model, "a"),
    ):
        with pytest.raises(ValueError, match=f"^{RULE}$"):
            call()
    assert not np.isfinite(model([1, 2])).all()


@pytest.mark.parametrize("layer", [0, 3])
def test_the_layer_is_the_first_that_overflows(layer: int) -> None:
    with pytest.raises(ValueError, match=f"in layer {layer}$"):
        overflowing(layer=layer).generate([1, 2], max_new_tokens=1)


def test_a_later_token_may_be_the_one_that_overflows() -> None:
    model = GPT2.from_pretrained()
    wpe = model.params.wpe.copy()
    wpe[5] = 3e38
    late = model.with_params(model.params._replace(wpe=wpe))
    session = late.start()
    session.feed([[1, 2, 3]])
    session.feed([[4]])
    session.feed([[4]])
    with pytest.raises(ValueError, match="overflow float32"):
        session.feed([[4]])


def test_an_edit_may_rule_tokens_out() -> None:
    def only_small(logits: np.ndarray) -> np.ndarray:
        logits = logits.copy()
        logits[..., 50:] = -np.inf
        return logits

    model = GPT2.from_pretrained(backend="numpy").with_edits({"unembed": only_small})
    assert max(model.generate("One day", max_new_tokens=3).ids) < 50


def test_json_is_json() -> None:
    assert json.loads(dumps({"a": [1.5, -float("inf"), "é"], "b": (1, None)})) == {
        "a": [1.5, None, "é"],
        "b": [1, None],
    }
    with pytest.raises(ValueError, match="not a number"):
        dumps({"a": [float("nan")]})


def test_every_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    from gpt2_np.weights.hub import BUNDLED

    folder = shutil.copytree(BUNDLED / "tales", tmp_path / "model")
    tensors = {name: np.array(one, np.float32) for name, one in load_file(folder / "model.safetensors").items()}
    name = next(name for name in tensors if name.endswith("h.1.mlp.c_proj.weight"))
    tensors[name][:] = 3e38
    save_file(tensors, folder / "model.safetensors")
    text = tmp_path / "text.txt"
    text.write_text("One day the king was old. " * 20)
    commands = [
        ["generate", "a", "--json"],
        ["generate", "a", "--num-beams", "2", "--backend", "numpy"],
        ["logits", "a", "--json"],
        ["score", "a b", "--json"],
        ["choose", "a", " b", " c", "--by", "byte", "--json"],
        ["inspect", "a", "--out", str(tmp_path / "page.html")],
        ["internals", "lens", "a", "--json"],
        ["internals", "heads", "--json"],
        ["internals", "attention", "a", "--layer", "0", "--head", "0", "--json"],
        ["internals", "ablate", "a", "--answer", " the", "--json"],
        ["internals", "tune", str(text), str(tmp_path / "lens.safetensors"), "--json"],
        ["internals", "steer", "a", "--towards", "b", "--away", "c", "--layer", "2", "--json"],
        ["internals", "capture", str(text), str(tmp_path / "capture"), "--names", "blocks.2.resid_pre"],
    ]
    for command in commands:
        with pytest.raises(SystemExit) as left:
            main([*command, "--model", str(folder)])
        said = capsys.readouterr()
        assert (left.value.code, said.err, said.out) == (2, f"error: {RULE}\n", ""), command
