"""Every implementation of the operations, and of their derivatives, has its protocol's functions and signatures."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from gpt2_np.engine import kernels, threaded
from gpt2_np.gradients import compiled, derivatives, joined, joined_compiled
from gpt2_np.gradients import threaded as threaded_derivatives
from gpt2_np.gradients.operations import Derivatives
from gpt2_np.model import choices, ops
from gpt2_np.model.operations import NAMES, Operations, with_linear
from gpt2_np.session import model


def signature(function) -> tuple:
    """Names, kinds, defaults and types of what a function takes, a method's ``self`` left out; and what it returns."""
    found = inspect.signature(function)
    parameters = [parameter for parameter in found.parameters.values() if parameter.name != "self"]
    return parameters, found.return_annotation


@pytest.mark.parametrize(
    ("protocol", "module"),
    [
        (Operations, ops),
        (Operations, threaded),
        (Operations, kernels),
        (Operations, joined),
        (Operations, joined_compiled),
        (Derivatives, derivatives),
        (Derivatives, threaded_derivatives),
        (Derivatives, compiled),
    ],
    ids=lambda one: one.__name__,
)
def test_implementations_have_the_signatures_of_their_protocol(protocol: type, module: ModuleType) -> None:
    functions = {name: one for name, one in vars(protocol).items() if not name.startswith("_")}
    assert len(functions) >= 12
    for name, function in functions.items():
        assert signature(getattr(module, name)) == signature(function), name


def test_a_replaced_linear_leaves_the_other_operations() -> None:
    changed = with_linear(kernels, ops.linear)
    assert changed.linear is ops.linear
    assert all(getattr(changed, name) is getattr(kernels, name) for name in NAMES if name != "linear")


def test_what_a_model_is_loaded_with_is_said_once() -> None:
    assert (model.DTYPES, model.BACKENDS) == (choices.DTYPES, choices.BACKENDS)
