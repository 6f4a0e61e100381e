"""Whatever is public says what it is: no class of the library prints as an address in memory."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import decoders
import gpt2_np
from gpt2_np.training import AdamW

# A program's own insides, and what needs packages that aren't the library's.
NOT_PUBLIC = ("gpt2_np.cli", "gpt2_np.__main__", "gpt2_np.engine.kernels", "gpt2_np.torch_reference")


def public_classes() -> Iterator[type]:
    for package in (gpt2_np, decoders):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith(NOT_PUBLIC) or found.name.rpartition(".")[2].startswith("_"):
                continue
            module = importlib.import_module(found.name)
            for name, one in inspect.getmembers(module, inspect.isclass):
                if one.__module__ == found.name and not name.startswith("_"):
                    yield one


def says_nothing(one: type) -> bool:
    """Whether a class prints as ``<module.Name object at 0x…>``; protocols and type dictionaries have no objects."""
    if getattr(one, "_is_protocol", False) or getattr(one, "__total__", None) is not None:
        return False
    return one.__repr__ is object.__repr__


def test_every_public_class_has_a_repr() -> None:
    classes = list(public_classes())
    assert len(classes) > 200
    assert not [f"{one.__module__}.{one.__name__}" for one in classes if says_nothing(one)]


def test_the_test_sees_a_class_that_says_nothing() -> None:
    class Silent:
        pass

    assert says_nothing(Silent)
    assert not says_nothing(AdamW)
