"""Matrices in panels: the same values, and nothing packed that lies so already."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import random_ids

from gpt2_np.engine.layout import packed
from gpt2_np.model.params import flatten, matrices
from gpt2_np.session.model import Model
from gpt2_np.weights.panels import TILE, Matrix


def test_values_stay_and_panels_are_pieces_of_memory(small: Path) -> None:
    params = Model.from_pretrained(small).params
    once = packed(params)
    for block, other in zip(params.h, once.h, strict=True):
        for part, panels in zip(matrices(block), matrices(other), strict=True):
            matrix = panels.weight
            assert isinstance(matrix, Matrix)
            assert matrix.precision == "float32"
            assert matrix.codes.flags.c_contiguous
            assert not matrix.codes.flags.writeable
            assert matrix.codes.ctypes.data % 64 == 0
            inputs, outputs = matrix.shape
            assert matrix.codes.shape == (-(-outputs // TILE), inputs, TILE)
            np.testing.assert_array_equal(matrix.dequantize(), part.weight)
            np.testing.assert_array_equal(panels.bias, part.bias)
    np.testing.assert_array_equal(once.lm_head.dequantize(), params.lm_head.T)
    assert once.wte is params.wte
    again = packed(once)
    assert all(a is b for (_, a), (_, b) in zip(flatten(once), flatten(again), strict=True))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int8", "int4"])
def test_other_precisions_stay_as_they_are(dtype: str, small: Path) -> None:
    params = Model.from_pretrained(small, dtype=dtype).params
    assert all(a is b for (_, a), (_, b) in zip(flatten(params), flatten(packed(params)), strict=True))


def test_who_only_observes_keeps_the_file_s_own_memory(small: Path) -> None:
    model = Model.from_pretrained(small)
    model.run_with_cache(random_ids(1, 4))
    assert "packed" not in vars(model.implementation)
    model(random_ids(1, 4))
    assert "packed" in vars(model.implementation)


def test_decoding_takes_no_second_copy(tmp_path: Path) -> None:
    """The process unmaps the matrices that it has copied: at its peak it holds the weights once."""
    from safetensors.numpy import save_file

    from gpt2_np.model.config import Config
    from gpt2_np.model.params import shapes

    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc, which this system lacks")
    size = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 5000}
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes(Config(**size)).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(size))
    code = (
        "import sys; from gpt2_np import GPT2\n"
        "def mb(what): return [int(s.split()[1]) for s in open('/proc/self/status') if s.startswith(what)][0] / 1e3\n"
        "model = GPT2.from_pretrained(); model.generate([1], max_new_tokens=2); before = mb('VmRSS')\n"
        "model = GPT2.from_pretrained(sys.argv[1]); model.generate([1], max_new_tokens=2); print(mb('VmHWM') - before)"
    )
    weights = (tmp_path / "model.safetensors").stat().st_size / 1e6
    taken = float(subprocess.check_output([sys.executable, "-c", code, str(tmp_path)]))
    assert taken < 1.25 * weights, f"{taken:.0f} MB more at the peak for {weights:.0f} MB of weights"
