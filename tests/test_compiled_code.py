"""Compiled code: kept by what it is made from, read only where it is sound and nobody else's, right for any target."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2_np.engine.kernels import code_cache, sources, target

ROOT = Path(__file__).parent.parent
NORM = """
import numpy as np
from gpt2_np.engine.kernels import layer_norm
x = np.arange(6, dtype=np.float32).reshape(1, 6)
print(layer_norm(x, np.ones(6, np.float32), np.zeros(6, np.float32), 1e-5).tolist())
"""


def run(code: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, with the package of `cwd`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR",)}
    environment |= {"PYTHONPATH": str(cwd), "NUMBA_NUM_THREADS": "2"} | variables
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the compiled kernels."""
    folder = tmp_path_factory.mktemp("kept")
    assert run(NORM, NUMBA_CACHE_DIR=str(folder)).returncode == 0
    return folder


@pytest.fixture
def cache(kept: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(kept, tmp_path / "cache")


def test_imports_are_found_as_the_parser_finds_them() -> None:
    for path in sources.PACKAGE.rglob("*.py"):
        wanted = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                names = [base.with_suffix(".py")] if node.module else []
                wanted |= {*names, *((base / name.name).with_suffix(".py") for name in node.names)}
            assert not isinstance(node, ast.Import) or not any(one.name.startswith("gpt2_np") for one in node.names)
        assert {file for file in wanted if file.is_file()} <= {*sources._read(path)[1]}, path


def test_what_a_kernel_reaches() -> None:
    reached = {file.name for file in sources.reached(sources.PACKAGE / "engine" / "kernels" / "fused.py")}
    assert {"fused.py", "pointwise.py", "dot_products.py", "simd.py", "int4.py", "float32.py", "ops.py"} <= reached
    assert "session.py" not in reached


def test_a_change_in_an_inlined_kernel_changes_what_the_next_process_computes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gpt2_np", tmp_path / "gpt2_np", ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    slope = """
import numpy as np
from gpt2_np.engine.kernels.backwards import gelu_backward_rows
out = np.empty((1, 1), np.float32)
gelu_backward_rows(np.ones((1, 1), np.float32), -np.ones((1, 1), np.float32), out)
print(out[0, 0])
"""
    before = run(slope, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    inlined = tmp_path / "gpt2_np" / "engine" / "kernels" / "exponential.py"
    text = inlined.read_text(encoding="utf-8")
    assert "HIGHEST = -87.0, 88.0" in text
    inlined.write_text(text.replace("HIGHEST = -87.0, 88.0", "HIGHEST = -87.0, 0.0"), encoding="utf-8")
    after = run(slope, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert float(before.stdout) == pytest.approx(-0.08296, abs=1e-5), before.stderr  # GELU's slope at −1
    assert float(after.stdout) == pytest.approx(0.04755, abs=1e-5), after.stderr  # with e^x held to 1


def test_a_change_further_away_gives_another_key(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "gpt2_np", tmp_path / "gpt2_np", ignore=shutil.ignore_patterns("bundled"))
    code = "from gpt2_np.engine.kernels import compiled, sources\nfrom pathlib import Path\n"
    code += "home = sources.PACKAGE / 'engine' / 'kernels'\n"
    code += "print(*(sources.digest(home / f'{one}.py') for one in ('fused', 'kernel_types')))"
    variables = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DISABLE_JIT": "1"}
    fused, arithmetic = run(code, tmp_path, **variables).stdout.split()
    with (folder / "engine" / "kernels" / "pointwise.py").open("a") as file:
        file.write("# changed\n")
    changed, same = run(code, tmp_path, **variables).stdout.split()
    assert fused != changed
    assert arithmetic == same


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "a bit"])
def test_damaged_code_is_compiled_again(cache: Path, damage: str) -> None:
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        middle = bytearray(content)
        middle[len(content) // 2] ^= 1
        path.write_bytes({"empty": b"", "cut": content[:-9], "garbage": b"\x80\x04x" * 99, "a bit": middle}[damage])
    done = run(NORM, NUMBA_CACHE_DIR=str(cache))
    assert (done.returncode, done.stderr) == (0, "")
    assert all(code_cache.read(path) for path in files)


def test_without_a_place_to_keep_code_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(NORM, NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 0
    assert done.stdout.startswith("[[-1.46")
    assert done.stderr.count("\n") == 1
    assert "can't be kept" in done.stderr
    done = run(NORM, HOME=str(tmp_path / "nowhere"), XDG_CACHE_HOME="")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)


def test_the_readable_path_needs_no_compiler_and_no_cache(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('not here')")
    code = "from gpt2_np import GPT2\nmodel = GPT2.from_pretrained(backend='numpy')\n"
    code += "print(len(model.generate('a', max_new_tokens=2).ids))"
    done = run(code, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}", HOME="/nowhere", XDG_CACHE_HOME="")
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="a system without owners")
def test_what_others_may_write_to_is_not_read(cache: Path) -> None:
    (cache / "gpt2_np").chmod(0o777)
    done = run(NORM, NUMBA_CACHE_DIR=str(cache))
    assert done.returncode == 0
    assert "others may write to it" in done.stderr
    (cache / "gpt2_np").chmod(0o700)
    one = next(path for path in cache.rglob("*") if path.is_file())
    assert code_cache.read(one) is not None
    one.chmod(0o666)
    assert code_cache.read(one) is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_others_is_not_read(cache: Path) -> None:
    one = next(path for path in cache.rglob("*") if path.is_file())
    os.chown(one, 12345, 12345)
    assert code_cache.read(one) is None
    os.chown(cache / "gpt2_np", 12345, 12345)
    assert "belongs to another user" in run(NORM, NUMBA_CACHE_DIR=str(cache)).stderr


def test_every_kernel_is_kept(kept: Path) -> None:
    modules = {path.name.rpartition("-")[0] for path in (kept / "gpt2_np").iterdir() if any(path.iterdir())}
    assert "pointwise" in modules


def test_watchers_are_told_before_something_is_compiled(tmp_path: Path) -> None:
    watched = "from gpt2_np.engine.kernels import code_cache\ncode_cache.watchers.append(lambda: print('compiling'))\n"
    first, later = (
        run(watched + NORM, NUMBA_CACHE_DIR=str(tmp_path / "cache")).stdout.split("\n", 1) for _ in range(2)
    )
    assert first[0] == "compiling"
    assert first[1].endswith("\n".join(later))
    assert "compiling" not in later[0]


def test_what_is_made_is_for_its_owner_alone(kept: Path) -> None:
    for path in (kept / "gpt2_np").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (kept / "gpt2_np").stat().st_mode & 0o077 == 0


def test_only_a_few_versions_are_kept(tmp_path: Path) -> None:
    for number in range(code_cache.KEPT + 4):
        code_cache.write(tmp_path / "gpt2_np" / f"dots-{number:016x}" / "kernel", b"code")
        os.utime(tmp_path / "gpt2_np" / f"dots-{number:016x}", (number, number))
    code_cache.write(tmp_path / "gpt2_np" / "causal-0" / "kernel", b"code")
    names = sorted(path.name for path in (tmp_path / "gpt2_np").iterdir())
    assert names[1:] == [f"dots-{number:016x}" for number in range(4, code_cache.KEPT + 4)]


def test_features_are_read_as_the_compiler_reads_them() -> None:
    assert target.said("+avx2,+avx512f", "avx512f")
    assert not target.said("+avx512f,-avx512f", "avx512f")
    assert not target.said("+avx512fp16", "avx512f")
    assert not target.said("", "avx512f")


LOGITS = """
import numpy as np
from gpt2_np import GPT2
ids = np.array([[5, 6, 7], [8, 9, 10], [3, 4, 5], [1, 2, 3], [9, 9, 9]])
for dtype in ("float32", "bfloat16", "int8", "int4"):
    fast, slow = (GPT2.from_pretrained(dtype=dtype, backend=backend).start() for backend in ("numba", "numpy"))
    one, other = fast.feed(ids), slow.feed(ids)
    # The kernels of reduced precisions round activations too, which the readable path doesn't.
    near = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.02, "int4": 0.3}[dtype]
    assert np.abs(one - other).max() < near, (dtype, np.abs(one - other).max())
    assert np.abs(fast.feed(ids[:, :1]) - slow.feed(ids[:, :1])).max() < near
print("right")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"NUMBA_ENABLE_AVX": "0"},
        {"NUMBA_CPU_NAME": "generic"},
        {"NUMBA_CPU_NAME": "x86-64"},
        {"NUMBA_CPU_NAME": "haswell"},
        {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""},
        {"NUMBA_CPU_NAME": "skylake-avx512"},
    ],
    ids=lambda variables: "-".join(variables.values()),
)
def test_every_target_computes_the_same(variables: dict[str, str], tmp_path: Path) -> None:
    done = run(LOGITS, NUMBA_CACHE_DIR=str(tmp_path), **variables)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


INT8 = """
from gpt2_np.engine.kernels import int8, simd
import numpy as np
out = np.zeros((1, 2), np.float32)
int8.int8_panels(np.ones((1, 8), np.float32), np.ones((1, 2, 64, 4), np.int8), np.array([[1, 1], [8, 8]], np.float32),
                  np.zeros(2, np.float32), out)
print(simd.AVX512, out.round(3).tolist())
"""


def test_a_target_without_wide_instructions_gets_none(tmp_path: Path) -> None:
    done = run(INT8, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_ENABLE_AVX="0")
    assert (done.returncode, done.stdout) == (0, "False [[8.0, 8.0]]\n"), done.stderr
