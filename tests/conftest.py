"""What many tests need: the helpers' folder on the path, the bundled model, a small checkpoint, one thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from gpt2_np import GPT2

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Kernel threads wait for each other by spinning: on a machine that is busy with something else, tests of tiny models
# would wait far longer than they compute. What more threads change is tested in processes that ask for them.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
# How long an example took says how busy the machine was, not whether it is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random GPT-2 saved by transformers; without these a test that needs it is skipped."""
    pytest.importorskip("transformers", reason="needs torch and transformers: pip install '.[test]'")
    from reference import reference_model, save

    return save(reference_model(), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def gpt2() -> GPT2:
    """The bundled model on the NumPy backend. It is never changed, so one serves all tests of a process."""
    from gpt2_np import GPT2

    return GPT2.from_pretrained(backend="numpy")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread in BLAS: for small models a second only waits, and on a busy machine everyone waits for it."""
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1):
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `pytest -m parity` compares."""
    parser.addoption("--model", default="tales", help="the model that the parity suite checks")
    parser.addoption("--device", default="cpu", choices=["cpu", "cuda"], help="where torch runs in the parity suite")
    parser.addoption("--prompts", help="a file with the parity suite's prompts, one a line")
