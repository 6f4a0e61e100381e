"""Object files: a process that finds one writes the same without Numba; one that can't use it loads Numba."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding

from gpt2_np.engine.kernels import code_cache, forward_object, fused, object_code
from gpt2_np.engine.kernels.forward_pass import SOURCE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="object files are used on Linux only")
NAME = "forward-ff"
BEGIN = "import sys, hashlib\n"
WRITE = """
from gpt2_np import GPT2
model = GPT2.from_pretrained()
ids = model.generate("One day", max_new_tokens=8).ids
print(ids, hashlib.sha256(model(list(range(70))).tobytes()).hexdigest(), "numba" in sys.modules)
"""


def run(code: str, **variables: str) -> str:
    """The output of Python code in a process of its own."""
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"} | variables
    done = subprocess.run([sys.executable, "-c", BEGIN + code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written() -> str:
    """What a process writes that has an object file: the first one may have to make it."""
    run(WRITE)
    return run(WRITE)


def test_an_object_file_writes_what_numba_writes_and_numba_is_not_loaded(written: str) -> None:
    assert written.endswith(" False\n")
    assert run("import numba" + WRITE) == written.replace("False", "True")


def test_the_first_process_has_it_made_by_another_one(written: str, tmp_path: Path) -> None:
    cold = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(WRITE, **cold) == written
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [
        ".o"
    ]  # no called function's code is kept


def test_without_another_process_numba_compiles_in_this_one(written: str, tmp_path: Path) -> None:
    cold = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "0"}  # quicker
    embedded = run("sys.executable = '/usr/bin/program'" + WRITE, **cold)
    assert embedded.endswith(" True\n")
    assert embedded.split("]")[0] == written.split("]")[0]


def test_another_process_that_fails_leaves_it_to_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_object, "COMMAND", "raise SystemExit('no Numba here')")
    assert forward_object.object_file("f", "f") is None
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    assert forward_object.object_file("f", "f") is None


def test_numba_may_be_loaded_afterwards(written: str) -> None:
    after = """
import numba
from gpt2_np.engine.kernels import threads
from gpt2_np.gradients.metrics import CrossEntropy
print(threads.threads(), numba.get_num_threads(), model.run_with_gradients([1, 2, 3], CrossEntropy()).value.shape)
numba.set_num_threads(1)
print(threads.threads(), model.generate("One day", max_new_tokens=8).ids == ids)
"""
    lines = run(WRITE + after).splitlines()
    assert lines[0] + "\n" == written
    assert lines[1].startswith("2 2 ")
    assert lines[2] == "1 True"


def test_threads_are_as_many_as_numba_would_start_and_can_be_fewer() -> None:
    code = """
from threading import Thread
from gpt2_np import GPT2
from gpt2_np.engine.kernels import numba_runtime, threads
threads.limit(3)
GPT2.from_pretrained()([1, 2])
found = []
count = lambda: found.append(threads.threads())
other = Thread(target=count)
count(), other.start(), other.join(), threads.limit(1), count(), threads.limit(9), count()
print(numba_runtime.running, found)
"""
    run(WRITE)
    assert run(code) == "['omp'] [3, 3, 1, 3]\n"
    assert run(code, NUMBA_NUM_THREADS="") == "['omp'] [3, 3, 1, 3]\n"


def test_a_damaged_file_and_one_with_unknown_symbols_are_not_linked(written: str, tmp_path: Path) -> None:
    path = object_code._path(SOURCE, NAME)
    copy = tmp_path / "gpt2_np" / path.parent.name / path.name
    shutil.copytree(path.parent, copy.parent)
    for folder in (copy.parent, copy.parent.parent):
        folder.chmod(0o700)
    load = f"""
from gpt2_np.engine.kernels import numba_runtime, object_code
from gpt2_np.engine.kernels.forward_pass import SOURCE
every = numba_runtime.symbols
numba_runtime.symbols = lambda layer: {{name: where for name, where in every(layer).items() if name != sys.argv[0]}}
print(object_code.load(SOURCE, {NAME!r}) is not None)
"""
    cached = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run(load, **cached) == "True\n"
    assert run("sys.argv = ['numba_unpickle']" + load, **cached) == "False\n"
    whole = code_cache.read(copy)
    assert whole is not None
    about, _, code = whole.partition(b"\n")
    for content in (b"", about, about + b"\ncode", b"{}\n" + code, whole.replace(b'"omp"', b'"owl"', 1)):
        copy.unlink()
        code_cache.write(copy, content)  # with a checksum that is right
        assert run(load, **cached) == "False\n", content[:40]
    copy.write_bytes(copy.read_bytes()[:-1])
    assert run(load, **cached) == "False\n"


def test_undefined_symbols_are_those_that_the_code_calls() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    text = """
declare void @one(i64)
declare void @never(i64)
@other = external global i64
define void @all(i64 %x) {
  %y = load i64, ptr @other
  call void @one(i64 %y)
  call void @inner(i64 %y)
  ret void
}
define void @inner(i64 %x) { ret void }
"""
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    code = machine.emit_object(binding.parse_assembly(text))
    assert sorted(object_code.undefined(binding.ObjectFileRef.from_data(code))) == ["one", "other"]


def test_symbols_of_two_precisions_differ() -> None:
    """Numba numbers functions anew in each process, so of two that an earlier process left one could be the other's."""
    names = {kinds: fused.forward(*kinds).native_name for kinds in ("ff", "bb")}
    assert all(f"forward_{kinds[0]}_{kinds[1]}" in name for kinds, name in names.items()), names


def test_what_the_code_depends_on_is_in_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def path() -> Path:
        object_code.made_by.cache_clear()
        return object_code._path(SOURCE, NAME)

    here = path()
    for name, value in (("NUMBA_NUM_THREADS", "7"), ("OTHER", "1")):
        monkeypatch.setenv(name, value)
        assert path() == here
    for name, value in (("NUMBA_OPT", "1"), ("NUMBA_CPU_NAME", "haswell"), ("NUMBA_THREADING_LAYER", "workqueue")):
        monkeypatch.setenv(name, value)
        assert path() != here
        monkeypatch.delenv(name)
    assert object_code._path(SOURCE.with_name("float32.py"), NAME) != here
    object_code.made_by.cache_clear()


def test_a_numba_that_is_loaded_or_configured_by_a_file_is_left_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    assert object_code.supported()
    (tmp_path / ".numba_config.yaml").write_text("opt: 1\n")
    assert not object_code.supported()
