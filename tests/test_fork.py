"""Processes and threads: a model in a forked process, in a spawned one, and in several threads at once."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2_np import GPT2

POOL = """
import multiprocessing, sys
from gpt2_np import GPT2
def answer(number):
    return model.generate("One day", max_new_tokens=6).ids, float(model(list(range(120))).sum())
if __name__ == "__main__":
    model = GPT2.from_pretrained(dtype=sys.argv[1], backend=sys.argv[2])
    here = answer(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(answer, range(3)) == [here] * 3
    print("same")
"""
THREADS = """
import sys, threading
if sys.argv[1] == "with Numba":
    import numba
from gpt2_np import GPT2
from gpt2_np.engine.kernels.threads import layer
model = GPT2.from_pretrained()
wanted = model.generate("One day", max_new_tokens=12).ids
assert layer() == "workqueue"
found = []
def work():
    for _ in range(12):
        found.append(model.generate("One day", max_new_tokens=12).ids == wanted)
threads = [threading.Thread(target=work) for _ in range(3)]
[one.start() for one in threads], [one.join() for one in threads]
print(len(found), all(found))
"""


GRADIENTS = """
import multiprocessing, sys, threading
import numpy as np
from gpt2_np import GPT2
from gpt2_np.gradients import cross_entropy
ids = np.arange(128).reshape(2, 64)
def step(number=0):
    found = model.run_with_gradients(ids, cross_entropy(), (), parameters=True)
    return found.value.tolist(), found.params.wte, found.params.h[0].attn.c_attn.weight
def same(one):
    return one[0] == wanted[0] and all((a == b).all() for a, b in zip(one[1:], wanted[1:]))
if __name__ == "__main__":
    model = GPT2.from_pretrained("tales")
    wanted = step()
    if sys.argv[1] == "forked":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found = pool.map(step, range(3))
    else:
        found = []
        threads = [threading.Thread(target=lambda: found.append(step())) for _ in range(3)]
        [one.start() for one in threads], [one.join() for one in threads]
    print(len(found), all(map(same, found)))
"""


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"} | variables
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.parametrize(("dtype", "backend"), [("float32", "numba"), ("int8", "numba"), ("float32", "numpy")])
def test_a_forked_process_computes_the_same(dtype: str, backend: str) -> None:
    done = run(POOL, dtype, backend)
    assert (done.returncode, done.stdout) == (0, "same\n"), done.stderr


@pytest.mark.parametrize("code", ["with Numba", "from the object file"])
def test_threads_take_turns_on_workqueue(code: str) -> None:
    done = run(THREADS, code, NUMBA_THREADING_LAYER="workqueue")
    assert (done.returncode, done.stdout) == (0, "36 True\n"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.parametrize(("where", "layer"), [("forked", "omp"), ("in threads", "omp"), ("in threads", "workqueue")])
def test_gradients_are_the_same(where: str, layer: str) -> None:
    done = run(GRADIENTS, where, NUMBA_THREADING_LAYER=layer)
    assert (done.returncode, done.stdout) == (0, "3 True\n"), done.stderr


@pytest.mark.parametrize(("dtype", "backend"), [("float32", "numpy"), ("int8", "numba"), ("float64", "numba")])
def test_a_model_is_pickled_by_its_name(dtype: str, backend: str) -> None:
    model = GPT2.from_pretrained("tales", dtype=dtype, backend=backend)
    written = pickle.dumps(model)
    assert len(written) < 500
    again = pickle.loads(written)
    assert (type(again), again.backend, again.dtype) == (GPT2, backend, model.dtype)
    np.testing.assert_array_equal(again([1, 2, 3]), model([1, 2, 3]))


def test_a_folder_is_pickled_by_its_path(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    written = pickle.dumps(GPT2.from_pretrained(small.name))
    monkeypatch.chdir("/")
    assert pickle.loads(written).folder == small


def test_what_cannot_be_pickled_says_why() -> None:
    model = GPT2.from_pretrained(backend="numpy")
    with pytest.raises(TypeError, match="it has edits"):
        pickle.dumps(model.with_edits({"blocks.0.mlp_out": lambda x: x}))
    with pytest.raises(TypeError, match="parameters"):
        pickle.dumps(model.with_params(model.params._replace(wte=model.params.wte * 2)))
    with pytest.raises(TypeError, match="parameters"):
        pickle.dumps(GPT2(model.params, model.config))


def test_a_model_can_be_copied_whatever_it_is() -> None:
    edited = GPT2.from_pretrained(backend="numpy").with_edits({"blocks.0.mlp_out": lambda x: 0 * x})
    for copied in (copy.copy(edited), copy.deepcopy(edited)):
        np.testing.assert_array_equal(copied([1, 2, 3]), edited([1, 2, 3]))


def test_a_session_goes_on_in_another_process() -> None:
    session = GPT2.from_pretrained().start(capacity=8)
    session.feed([[1, 2, 3]])
    again = pickle.loads(pickle.dumps(session))
    np.testing.assert_array_equal(again.feed([[4]]), session.feed([[4]]))
