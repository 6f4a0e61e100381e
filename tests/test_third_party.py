"""What other libraries raise on broken input is one line here: panics, recursion, full disks."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2
from gpt2_np.model.config import Config
from gpt2_np.system.files import mapped, panics_as_errors, read_json
from gpt2_np.text.tokenizer import Tokenizer
from gpt2_np.weights.hub import BUNDLED

DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


def normalizer(fields: dict[str, Any]) -> None:
    fields["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}


def prefix(fields: dict[str, Any]) -> None:
    fields["model"]["continuing_subword_prefix"] = "####"


@pytest.mark.parametrize("breaking", [normalizer, prefix])
def test_a_panic_is_a_value_error(tmp_path: Path, breaking: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads((BUNDLED / "tales" / "tokenizer.json").read_text(encoding="utf-8"))
    breaking(fields)
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    # GPT-2's own class would take the vocabulary alone and build the rest anew.
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a sound tokenizer file: "):
        Tokenizer.from_folder(tmp_path)
    # Where no other thread could be writing, the panic's own words don't reach stderr.
    code = "import sys; from pathlib import Path; from gpt2_np.text.tokenizer import Tokenizer\n"
    code += "try: Tokenizer.from_folder(Path(sys.argv[1]))\nexcept ValueError: print('refused')"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_other_exceptions_pass() -> None:
    for kind in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(kind), panics_as_errors():
            raise kind


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_deep_json_names_the_file(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(BUNDLED / "tales", tmp_path / "model")
    (folder / name).write_text(DEEP)
    done = subprocess.run(
        [sys.executable, "-m", "gpt2_np", "logits", "a", "--backend", "numpy", "--model", str(folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {folder / name}")
    assert done.stderr.count("\n") == 1


def test_a_deep_schema_is_one_line() -> None:
    from gpt2_np.text.constraints import json_schema

    with pytest.raises(ValueError, match="json_schema must be JSON"):
        json_schema(DEEP)


def test_a_broken_config_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"n_embd": \xff}')
    for read in (read_json, Config.from_file):
        with pytest.raises(ValueError, match=r"config\.json"):
            read(tmp_path / "config.json")


def test_a_disk_that_is_full_is_an_os_error_that_names_the_file(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from gpt2_np import GPT2
from gpt2_np.parity import bundle
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    bundle.export(Path({str(tmp_path)!r}), "tales", [[1, 2, 3]], 1)
except OSError as error:
    print(error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert resource.RLIM_INFINITY
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "activations.safetensors")), done.stderr


def test_small_files_are_read_and_stay_sound_when_cut(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5000))
    data = mapped(path, large_pages=False)
    path.write_bytes(b"")
    assert data.sum() == 0
    assert not data.flags.writeable


@pytest.mark.parametrize("ridge", [1e308, float("inf"), float("nan"), -1.0])
def test_a_ridge_out_of_bounds_is_refused_at_once(ridge: float) -> None:
    from gpt2_np.internals.lens import train_tuned_lens

    with pytest.raises(ValueError, match="ridge must be between 0 and"):
        train_tuned_lens(GPT2.from_pretrained(backend="numpy"), [[1, 2, 3]], ridge=ridge)


def test_a_scale_out_of_bounds_is_refused() -> None:
    from gpt2_np.internals.steering import addition

    for scale in (1e308, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale"):
            addition(np.ones(4, np.float32), 0, scale)
