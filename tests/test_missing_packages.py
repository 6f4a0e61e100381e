"""What runs where a package is missing, and the one line that says so where something doesn't."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_np import GPT2
from gpt2_np.engine import available
from gpt2_np.system.packages import MARK, foreign_decoders
from gpt2_np.training import AdamW, Settings

ROOT = Path(__file__).parent.parent
BLOCKED = "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)\n"
PYTHON = [sys.executable, "-W", "error::ResourceWarning"]


def run(
    folder: Path, code: str = "", *arguments: str, blocked: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code, or else the command line, with some packages blocked, by modules of their names on the path."""
    for name in blocked:
        (folder / f"{name}.py").write_text(BLOCKED)
    what = ["-c", code] if code else ["-m", "gpt2_np", *arguments]
    given = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"} | environment
    return subprocess.run([*PYTHON, *what], env=given, capture_output=True, text=True, cwd=folder)


EVERYTHING = """
import warnings
from pathlib import Path
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from gpt2_np import GPT2
    model = GPT2.from_pretrained()
    assert model.backend == "numpy", model.backend
    texts = [
        model.generate("One day", max_new_tokens=4).text,
        model.generate("One day", max_new_tokens=4, do_sample=True, top_p=0.9, seed=1).text,
        model.generate("One day", max_new_tokens=4, num_beams=2).text,
        "".join(model.stream("One day", max_new_tokens=4)),
        model.generate("One day", max_new_tokens=4, prompt_lookup_num_tokens=3, stop_strings=["zz"]).text,
    ]
    texts += [GPT2.from_pretrained(dtype=dtype).generate("One day", max_new_tokens=2).text
              for dtype in ("float64", "bfloat16", "int8", "int4")]
    print(texts, model.score("The king was old.").nll, model([1, 2, 3])[-1, :2])
    logits, cache = model.run_with_cache([1, 2, 3])
    model.run_with_edits([1, 2, 3], {"blocks.2.mlp_out": lambda x: 0 * x})
    from gpt2_np.gradients import cross_entropy
    assert model.run_with_gradients([1, 2, 3], cross_entropy(), parameters=True).params.wte.any()
    Path("book.txt").write_text("The king was old. " * 40)
    model.save_pretrained("saved")
    assert GPT2.from_pretrained("saved").tokenizer.encode("the king") == model.tokenizer.encode("the king")
assert [str(one.message).split(":")[0] for one in told] == ["Numba is not installed"], told
assert all(one.category is RuntimeWarning for one in told)
import sys
from gpt2_np.cli import main
few = ["--steps", "1", "--batch-size", "1", "--context", "8", "--sample-tokens", "2"]
main(["train", "book.txt", "--out", "other", *few])
main(["score", "The king was old."])
main(["logits", "a"])
main(["generate", "a", "-n", "2", "--do-sample", "--seed", "3"])
"""


def test_everything_runs_on_numpy_and_click_alone(tmp_path: Path) -> None:
    """What a machine without the compiled packages writes is what this one writes on its NumPy backend."""
    names = ("numba", "tokenizers", "safetensors", "threadpoolctl", "tqdm", "huggingface_hub", "llguidance", "torch")
    done = run(tmp_path, EVERYTHING, blocked=(*names, "transformers"))
    assert done.returncode == 0, done.stderr
    model = GPT2.from_pretrained(backend="numpy")
    for options in ({}, {"do_sample": True, "top_p": 0.9, "seed": 1}, {"num_beams": 2}):
        assert repr(model.generate("One day", max_new_tokens=4, **options).text) in done.stdout
    for dtype in ("float64", "bfloat16", "int8", "int4"):
        other = GPT2.from_pretrained(dtype=dtype, backend="numpy")
        assert repr(other.generate("One day", max_new_tokens=2).text) in done.stdout
    assert f"{model.score('The king was old.').nll:.4f}" in done.stdout
    assert done.stderr.count("warning") == 0  # it was told once in this process, above
    assert "Traceback" not in done.stderr


def test_the_command_line_warns_in_one_line_and_refuses_in_one(tmp_path: Path) -> None:
    done = run(tmp_path, "", "generate", "a", "-n", "2", blocked=("numba", "huggingface_hub"))
    assert done.returncode == 0
    assert done.stderr == "warning: Numba is not installed: backend 'numpy' is used, which is slower\n"
    asked = run(tmp_path, "", "generate", "a", "--backend", "numba")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr == "error: backend 'numba' needs Numba, which is not installed: pip install numba\n"
    hub = run(tmp_path, "", "info", "--model", "somebody/something", "--backend", "numpy")
    assert (hub.returncode, hub.stdout) == (2, "")
    assert hub.stderr.startswith("error: there is no folder 'somebody/something', and a model from the hub needs")
    assert hub.stderr.endswith("pip install huggingface_hub\n")
    assert hub.stderr.count("\n") == 1


def test_a_numba_that_cannot_be_loaded_is_told_of_and_done_without(tmp_path: Path) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba/__init__.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less.\\nGot NumPy 9.9.')")
    done = run(tmp_path, "", "generate", "a", "-n", "2")
    assert done.returncode == 0
    why = "Numba needs NumPy 2.3 or less. Got NumPy 9.9."
    assert done.stderr == f"warning: Numba can't be loaded ({why}): backend 'numpy' is used, which is slower\n"
    code = "import numpy as np\nfrom gpt2_np.training import AdamW\nones = (np.ones(3, 'f4'),)\n"
    code += "AdamW(0.1).step(ones, ones, None)"
    assert "RuntimeWarning: Numba can't be loaded" in run(tmp_path, code).stderr


def test_without_click_the_command_line_says_what_to_install_and_the_library_works(tmp_path: Path) -> None:
    done = run(tmp_path, "", "generate", "a", blocked=("click",))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the command line needs click, which is not installed: pip install click\n"
    code = (
        "from gpt2_np import GPT2; print(GPT2.from_pretrained(backend='numpy').generate([1, 2], max_new_tokens=1).ids)"
    )
    assert run(tmp_path, code).returncode == 0


def test_what_numba_would_have_done_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "installed", lambda: False)
    available.warn.cache_clear()
    with pytest.warns(RuntimeWarning, match="Numba is not installed: backend 'numpy' is used"):
        assert GPT2.from_pretrained().backend == "numpy"
    assert Settings().backend == AdamW(1.0).backend == "numpy"  # and no second warning, which would be an error here
    for make in (lambda: GPT2.from_pretrained(backend="numba"), lambda: AdamW(1.0, backend="numba")):
        with pytest.raises(ValueError, match="backend 'numba' needs Numba, which is not installed: pip install numba"):
            make()


def test_the_environment_says_how_many_threads_where_threadpoolctl_is_missing(tmp_path: Path) -> None:
    code = "from gpt2_np.system.threads import blas_threads, one_blas_thread\n"
    code += "with one_blas_thread(): print(blas_threads())"
    free = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "")
    for said, expected in (("3", 3), ("", os.cpu_count()), ("many", os.cpu_count())):
        done = run(tmp_path, code, blocked=("threadpoolctl",), OMP_NUM_THREADS=said, **free)
        assert done.stdout == f"{expected}\n", done.stderr


FOREIGN = "from transformers import Nothing\n\ndef inject(model):\n    pass\n"


@pytest.mark.parametrize("content", [FOREIGN, "def inject(model): pass\n", "raise AttributeError('broken')\n", None])
def test_another_package_called_decoders_is_named(content: str | None, tmp_path: Path) -> None:
    """On PyPI there is one; None: what its removal may leave of ours, a folder without its first file."""
    shutil.copytree(ROOT / "gpt2_np", tmp_path / "gpt2_np", ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    (tmp_path / "decoders").mkdir()
    if content is not None:
        (tmp_path / "decoders/__init__.py").write_text(content)
    where = tmp_path / "decoders" / ("" if content is None else "__init__.py")
    begin = f"the package 'decoders' that Python finds is {where}, not the one that comes with gpt2-np: "
    given = os.environ | {"PYTHONPATH": str(tmp_path)}
    if content is None:
        apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        there = subprocess.run([sys.executable, "-c", "import decoders.base"], env=apart, capture_output=True, cwd="/")
        if there.returncode == 0:
            pytest.skip("gpt2-np is installed here: Python finds its decoders before a folder that is no package")
    library, command = (
        subprocess.run([sys.executable, *what], env=given, capture_output=True, text=True, cwd=tmp_path)
        for what in (["-c", "from gpt2_np import GPT2"], ["-m", "gpt2_np", "generate", "a"])
    )
    assert library.stderr.splitlines()[-1].startswith(f"ImportError: {begin}")
    assert "During handling" not in library.stderr
    assert (command.returncode, command.stdout) == (2, "")
    assert command.stderr.startswith(f"error: {begin}")
    assert command.stderr.count("\n") == 1


def test_the_server_names_its_extra(tmp_path: Path) -> None:
    done = run(tmp_path, "", "serve", blocked=("starlette", "uvicorn"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: the server needs ")
    assert done.stderr.endswith(": pip install 'gpt2-np[serve]'\n")
    code = "from gpt2_np.server import Batched, Limits; from gpt2_np.server import create_app"
    assert "ImportError: create_app needs " in run(tmp_path, code, blocked=("starlette", "uvicorn")).stderr


def test_our_own_decoders_are_known() -> None:
    assert foreign_decoders() is None
    assert MARK in (ROOT / "decoders/__init__.py").read_text()


def test_other_faults_of_an_import_stay_what_they_are(tmp_path: Path) -> None:
    done = run(tmp_path, "from gpt2_np import GPT2", blocked=("numpy",))
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'numpy'"
