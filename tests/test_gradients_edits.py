"""Edits in a gradient run: what stops gradients, what passes them, and gradients replaced on their way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gradient_reference import Graph, assert_close, ours, parameter_gradients, transformed
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import random_ids, reference_model

from gpt2_np.gradients import Edit, activation_derivatives, check_gradient, cross_entropy, logit_difference
from gpt2_np.internals.variants import PerRow
from gpt2_np.model.edits import Edits, Part
from gpt2_np.model.params import flatten
from gpt2_np.model.taps import ON_REQUEST, Capture, points, sizes

REFERENCE = reference_model(n_layer=2, vocab_size=23, n_embd=12, n_head=3, n_positions=8).double()
MODEL = ours(REFERENCE)
IDS = random_ids(2, 6, 23)
METRIC = cross_entropy()
EVERYTHING = ["*", *(f"*.{name}" for name in ON_REQUEST)]
NAMES = list(points(MODEL.config))


def shape(name: str) -> tuple[int, ...]:
    known = sizes(MODEL.config) | {"B": 2, "T": 6, "S": 6}
    return tuple(known[letter] for letter in points(MODEL.config)[name].split())


def array(name: str) -> np.ndarray:
    x = np.random.default_rng(3).standard_normal(shape(name))
    return np.abs(x) + 0.5 if name.endswith(("scale", "pattern")) else x


class Changed(Graph):
    """A graph in which one activation is changed, in torch, before its node is made."""

    def __init__(self, changes: dict[str, Any]) -> None:
        super().__init__()
        self.changes = changes

    def __call__(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(name, self.changes[name](x) if name in self.changes else x)


def compare(edits: dict[str, Any], in_torch: dict[str, Any], keep: str = "all") -> None:
    graph = Changed(in_torch)
    logits = transformed(REFERENCE, IDS, graph)
    loss = torch.nn.functional.cross_entropy
    losses = [loss(row[:-1], torch.tensor(ids[1:])) for row, ids in zip(logits, IDS, strict=True)]
    REFERENCE.zero_grad()
    torch.stack(losses).sum().backward()
    run = MODEL.with_edits(edits).run_with_gradients(IDS, METRIC, EVERYTHING, parameters=True, keep=keep)
    assert_close(dict(run.grads), graph.gradients())
    assert run.params is not None
    assert_close(dict(flatten(run.params)), parameter_gradients(REFERENCE))
    np.testing.assert_allclose(run.value, [one.item() for one in losses], rtol=1e-11)


@pytest.mark.parametrize("keep", ["all", "layers", "inputs"])
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("blocks.1")])
def test_an_array_stops_the_gradient(name: str, keep: str) -> None:
    value = array(name)
    compare({name: value}, {name: lambda x: torch.tensor(value)}, keep)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("blocks.0")])
def test_a_derivative_passes_it(name: str) -> None:
    """Half the square root of 1 + x² in place of x; of scores, −∞ stays what it is."""

    def change(x: np.ndarray) -> np.ndarray:
        return np.where(np.isinf(x), x, 0.5 * np.sqrt(1 + x * x))

    def derivative(x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        x = np.where(np.isinf(x), 0, x)
        return 0.5 * gradient * x / np.sqrt(1 + x * x)

    def in_torch(x: torch.Tensor) -> torch.Tensor:
        hidden = torch.isinf(x)
        return torch.where(hidden, x, 0.5 * (1 + torch.where(hidden, 0, x) ** 2).sqrt())

    compare({name: Edit(change, derivative)}, {name: in_torch}, "inputs")


def test_parts_stop_and_pass_their_part_alone() -> None:
    value = array("blocks.0.attn.pattern")
    kept = torch.ones(1, 3, 6, 1, dtype=torch.float64)
    kept[:, 1, 2:4] = 0
    compare(
        {"blocks.0.attn.pattern": Part(value, positions=[2, 3], heads=1)},
        {"blocks.0.attn.pattern": lambda x: torch.tensor(value) * (1 - kept) + x * kept},
    )
    weights = torch.ones(1, 1, 3, 1, dtype=torch.float64)
    weights[:, :, 2] = -2
    compare(
        {"blocks.1.attn.z": Edit(Part(lambda x: -2 * x, heads=2), lambda x, g: -2 * g)},
        {"blocks.1.attn.z": lambda x: x * weights},
    )


def test_edits_one_behind_the_other_are_passed_in_reverse() -> None:
    double = Edit(lambda x: 2 * x, lambda x, g: 2 * g)
    square = Edit(lambda x: x * x, lambda x, g: 2 * x * g)
    name = "blocks.0.mlp.post"
    graph = Changed({name: lambda x: (2 * x) ** 2})
    logits = transformed(REFERENCE, IDS[:1], graph)
    torch.nn.functional.cross_entropy(logits[0, :-1], torch.tensor(IDS[0, 1:])).backward()
    run = MODEL.with_edits({name: double}).with_edits({name: square}).run_with_gradients(IDS[0], METRIC, EVERYTHING)
    assert_close(dict(run.grads), graph.gradients())


def test_straight_through() -> None:
    """A splice whose derivative passes gradients as they are: what left and what entered get the same."""
    name = "blocks.0.resid_post"
    splice = Edit(np.round, lambda x, gradient: gradient)
    run = MODEL.with_edits({name: splice}).run_with_gradients(IDS, METRIC, EVERYTHING)
    np.testing.assert_array_equal(run.cache[name], np.round(run.cache[name]))
    np.testing.assert_array_equal(run.grads["blocks.0.mlp_out"], run.grads[name])


def test_a_bare_function_is_refused_before_anything_runs() -> None:
    edited = MODEL.with_edits({"blocks.1.attn.z": lambda x: 1 / 0})
    message = r"the edit of blocks.1.attn.z is a function, .* give Edit\(function, derivative\), or an array"
    with pytest.raises(ValueError, match=message):
        edited.run_with_gradients(IDS, METRIC)
    with pytest.raises(ValueError, match=message):
        MODEL.with_edits({"blocks.1.attn.z": Part(lambda x: x, heads=1)}).run_with_gradients(IDS, METRIC)


def test_other_refusals() -> None:
    wrong = Edit(lambda x: x, lambda x, g: g[0])
    with pytest.raises(
        ValueError, match=r"the derivative of an edit of embed must have its shape \(2, 6, 12\), got \(6, 12\)"
    ):
        MODEL.with_edits({"embed": wrong}).run_with_gradients(IDS, METRIC)
    other = MODEL.with_edits({})
    other.tap = Capture(["embed"])
    with pytest.raises(ValueError, match="gradients pass edits alone, got a tap of type Capture"):
        other.run_with_gradients(IDS, METRIC)
    other.tap = PerRow([Edits({}, MODEL.config), Edits({"embed": lambda x: x}, MODEL.config)])
    with pytest.raises(ValueError, match="the edit of embed is a function, and gradients can't pass it"):
        other.run_with_gradients(IDS, METRIC)
    with pytest.raises(ValueError, match=r"no activation is named 'blocks\.0\.attn\.zz'"):
        MODEL.run_with_gradients(IDS, METRIC, gradient_edits={"blocks.0.attn.zz": np.zeros(1)})
    with pytest.raises(ValueError, match="an edit of embed must have its shape"):
        MODEL.run_with_gradients(IDS, METRIC, gradient_edits={"embed": np.zeros(1)})


@pytest.mark.parametrize("keep", ["all", "inputs"])
def test_each_row_may_have_edits_of_its_own(keep: str) -> None:
    cubed = Edit(lambda x: x**3, lambda x, g: 3 * x**2 * g)
    in_a_head = Edit(Part(lambda x: x**3, heads=1), lambda x, g: 3 * x**2 * g)
    stopped = array("blocks.0.attn.pattern")[:1]
    changes: list[dict[str, Any]] = [
        {"blocks.1.attn.z": in_a_head, "blocks.0.mlp.post": cubed},
        {"blocks.0.attn.pattern": stopped, "blocks.1.attn.z": array("blocks.1.attn.z")[1:]},
    ]
    both = MODEL.with_edits({})
    both.tap = PerRow([Edits(one, MODEL.config) for one in changes])
    together = both.run_with_gradients(IDS, METRIC, EVERYTHING, keep=keep)
    for row, one in enumerate(changes):
        alone = MODEL.with_edits(one).run_with_gradients(IDS[row : row + 1], METRIC, EVERYTHING, keep=keep)
        assert_close({name: x[row : row + 1] for name, x in together.grads.items()}, dict(alone.grads))
        for name, x in alone.cache.items():
            np.testing.assert_allclose(together.cache[name][row : row + 1], x, atol=1e-12, err_msg=name)


def test_an_edit_is_an_edit_in_plain_runs_too() -> None:
    edit = Edit(lambda x: 2 * x, lambda x, g: 2 * g)
    np.testing.assert_array_equal(
        MODEL.run_with_edits(IDS, {"embed": edit})[0], MODEL.run_with_edits(IDS, {"embed": lambda x: 2 * x})[0]
    )


# ---- gradients replaced on their way --------------------------------------------------------------------------------


def test_gradients_may_be_replaced() -> None:
    """A frozen norm and frozen patterns: the same as arrays in their places."""
    names = ["*.scale", "*.attn.pattern"]
    frozen = MODEL.run_with_cache(IDS, names)[1]
    stopped = MODEL.with_edits(dict(frozen)).run_with_gradients(IDS, METRIC, "*.resid_pre")
    replaced = MODEL.run_with_gradients(IDS, METRIC, "*.resid_pre", gradient_edits=dict.fromkeys(names, np.zeros_like))
    for name, x in stopped.grads.items():
        np.testing.assert_allclose(replaced.grads[name], x, atol=1e-15)
    plain = MODEL.run_with_gradients(IDS, METRIC, "*.resid_pre")
    assert np.abs(plain.grads["resid_pre", 0] - stopped.grads["resid_pre", 0]).max() > 1e-3
    np.testing.assert_array_equal(plain.value, replaced.value)


@given(name=st.sampled_from(NAMES), keep=st.sampled_from(["all", "layers", "inputs"]))
@settings(max_examples=60)
def test_a_gradient_doubled_is_a_derivative_doubled(name: str, keep: str) -> None:
    """Doubling a gradient on its way is what an edit does that keeps the value and has 2 for a derivative."""
    edit = Edit(lambda x: x, lambda x, g: 2 * g)
    by_edit = MODEL.with_edits({name: edit}).run_with_gradients(IDS, METRIC, EVERYTHING, True, keep=keep)
    by_tap = MODEL.run_with_gradients(IDS, METRIC, EVERYTHING, True, gradient_edits={name: lambda g: 2 * g})
    assert by_edit.params is not None
    assert by_tap.params is not None
    for other, x in by_tap.grads.items():
        np.testing.assert_allclose(by_edit.grads[other] * (2 if other == name else 1), x, atol=1e-14, err_msg=other)
    for (_, one), (_, other) in zip(flatten(by_edit.params), flatten(by_tap.params), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)


def test_gradients_may_be_seen_by_a_tap_of_ones_own() -> None:
    """One that lets the gradient past each activation function by its ratio, f(x) / x, in place of its derivative."""

    class Ratio:
        def __init__(self, values: Any) -> None:
            self.values, self.of_post = values, np.zeros(0)

        def wants(self, name: str) -> bool:
            return name.endswith(("mlp.pre", "mlp.post"))

        def __call__(self, name: str, x: np.ndarray) -> np.ndarray:
            if name.endswith("mlp.post"):
                self.of_post = x
            if name.endswith("mlp.pre"):
                return self.of_post * self.values[name.replace("pre", "post")] / self.values[name]
            return x

    values = MODEL.run_with_cache(IDS, "*.mlp.p*")[1]
    linear = {}
    for layer in range(2):
        pre, post = values["pre", layer], values["post", layer]
        factor = post / pre / activation_derivatives.gelu_new(pre)
        linear[f"blocks.{layer}.mlp.post"] = Edit(lambda x: x, lambda x, gradient, factor=factor: gradient * factor)
    by_tap = MODEL.run_with_gradients(IDS, METRIC, "*resid_pre", gradient_edits=Ratio(values))
    by_edit = MODEL.with_edits(linear).run_with_gradients(IDS, METRIC, "*resid_pre")
    for name, x in by_tap.grads.items():
        np.testing.assert_allclose(by_edit.grads[name], x, rtol=1e-9, atol=1e-13)


def test_what_is_put_into_the_future_goes_no_further() -> None:
    name = "blocks.1.attn.attn_scores"
    future = np.triu(np.ones((6, 6), bool), 1)
    put = MODEL.run_with_gradients(IDS, METRIC, gradient_edits={name: lambda g: np.where(future, 5.0, g)})
    plain = MODEL.run_with_gradients(IDS, METRIC)
    assert (put.grads[name][..., future] == 5).all()
    np.testing.assert_array_equal(put.grads["embed"], plain.grads["embed"])


def test_check_gradient_goes_through_edits() -> None:
    edit = Edit(lambda x: np.sin(x), lambda x, g: np.cos(x) * g)
    edited = MODEL.with_edits({"blocks.0.mlp_out": edit})
    for name in ("embed", "blocks.0.mlp_out", "blocks.0.mlp.pre", "blocks.1.ln1.scale"):
        assert check_gradient(edited, IDS, logit_difference(3, 4), name).error < 1e-6
    wrong = Edit(lambda x: np.sin(x), lambda x, g: g)
    with pytest.raises(ArithmeticError, match=r"the gradient of embed along 3 random directions is .* they differ by"):
        check_gradient(MODEL.with_edits({"blocks.0.mlp_out": wrong}), IDS, METRIC, "embed")
