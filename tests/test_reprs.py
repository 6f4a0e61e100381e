"""Whatever is public says what it is: no class of the library prints as an address in memory or as pages of numbers."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import decoders
import gpt2_np
from decoders import Options
from decoders.fields import Fields
from decoders.random.torch_rng import CPU
from gpt2_np.gradients import kl_divergence, logit_difference
from gpt2_np.training import Adapters
from gpt2_np.weights.panels import packed

ROOT = Path(__file__).parent.parent
# A program's own insides, and what needs packages that aren't the library's.
NOT_PUBLIC = ("gpt2_np.cli", "gpt2_np.__main__", "gpt2_np.engine.kernels", "gpt2_np.torch_reference")


def public_classes() -> Iterator[type]:
    for package in (gpt2_np, decoders):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith(NOT_PUBLIC):
                continue
            try:
                module = importlib.import_module(found.name)
            except ModuleNotFoundError:  # an extra that isn't installed
                continue
            for name, one in vars(module).items():
                if isinstance(one, type) and one.__module__ == found.name and not name.startswith("_"):
                    yield one


def says_nothing(one: type) -> bool:
    """Whether a class prints as ``<module.Name object at 0x…>``.

    Protocols, type dictionaries and what is only the base of `Options` have no objects.
    """
    if getattr(one, "_is_protocol", False) or getattr(one, "__total__", None) is not None or one is Fields:
        return False
    return one.__repr__ is object.__repr__


def written_here(one: type) -> bool:
    """Whether a class's repr is one of ours, not one that `dataclasses` or `collections` made."""
    code = getattr(inspect.unwrap(one.__repr__), "__code__", None)
    generated = hasattr(one.__repr__, "__wrapped__") or code is None
    return not generated and Path(code.co_filename).is_relative_to(ROOT)


def holds_arrays(one: type) -> bool:
    return any("Array" in str(kind) for kind in inspect.get_annotations(one).values())


def test_every_public_class_has_a_repr_and_no_record_of_arrays_prints_its_numbers() -> None:
    classes = list(public_classes())  # every module is imported here, once
    assert len(classes) > 200
    assert not [f"{one.__module__}.{one.__name__}" for one in classes if says_nothing(one)]
    records = [one for one in classes if hasattr(one, "__dataclass_fields__") or hasattr(one, "_fields")]
    ours = [one for one in records if one.__module__.startswith("gpt2_np.") and holds_arrays(one)]
    assert len(ours) > 30
    assert not [f"{one.__module__}.{one.__name__}" for one in ours if not written_here(one)]


@pytest.mark.parametrize(
    ("thing", "line"),
    [
        (Options(do_sample=True, top_k=5, seed=1), "Options(do_sample=True, seed=1, top_k=5)"),
        (Options(), "Options()"),
        (logit_difference(" he", " she"), "LogitDifference(tokens=[' he', ' she'], position=-1)"),
        (kl_divergence(np.zeros((9, 7))), "KLDivergence(tokens=[], position=-1, reference_logits=float64 (9, 7))"),
        (Adapters({"a": np.zeros(3)}, 8, 16.0), "Adapters(tensors=1 entries, rank=8, alpha=16, use_rslora=False)"),
        (packed(np.zeros((8, 8), np.float32)), "Matrix(codes=float32 (1, 8, 64), scales=float32 (0, 0), shape=[8, 8])"),
        (CPU(3), "CPU()"),
    ],
)
def test_a_few_of_them(thing: object, line: str) -> None:
    assert repr(thing) == line


def test_a_server_s_key_is_never_shown() -> None:
    requests = pytest.importorskip("gpt2_np.server.requests")
    assert repr(requests.Guard(None, "secret", ["localhost"])) == "Guard(with a key, hosts=['localhost'])"


def test_the_tests_see_a_class_that_says_nothing() -> None:
    class Silent:
        pass

    assert says_nothing(Silent)
    assert not written_here(type(inspect.signature(len)))
