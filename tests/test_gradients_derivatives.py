"""The derivative of every single operation: against finite differences of the operation, and on every core."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpt2_np.engine import threaded as threaded_ops
from gpt2_np.gradients import activation_derivatives, compiled, derivatives, joined, joined_compiled, threaded
from gpt2_np.model import forward as model
from gpt2_np.model import ops, params
from gpt2_np.model.config import ACTIVATIONS

Array = np.ndarray
NONE = np.zeros(2, np.int64)  # rows without a past


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def agrees(function: Callable[[Array], Array], x: Array, gradient: Array, found: Array) -> None:
    """`found` is the gradient of ``sum(gradient · function(x))`` after x: by central differences along directions."""
    for seed in range(3):
        direction, step = normal(*x.shape, seed=90 + seed), 1e-5
        change = function(x + step * direction) - function(x - step * direction)
        expected = float((gradient * change).sum()) / (2 * step)
        size = np.abs(gradient).max() * np.abs(change).max() / step
        assert found.shape == x.shape
        assert abs((found * direction).sum() - expected) <= 1e-8 * max(1.0, size)


def test_affine_maps() -> None:
    x, weight, bias, g = normal(2, 3, 5), normal(5, 4, seed=1), normal(4, seed=2), normal(2, 3, 4, seed=3)
    agrees(lambda x: ops.linear(x, weight, bias), x, g, derivatives.linear(g, weight))
    of_weight, of_bias = derivatives.linear_parameters(g, x)
    agrees(lambda weight: ops.linear(x, weight, bias), weight, g, of_weight)
    agrees(lambda bias: ops.linear(x, weight, bias), bias, g, of_bias)


def test_unembedding() -> None:
    x, head, g = normal(2, 3, 5), normal(7, 5, seed=1), normal(2, 3, 7, seed=2)
    agrees(lambda x: ops.unembed(x, head), x, g, derivatives.unembed(g, head))
    agrees(lambda head: ops.unembed(x, head), head, g, derivatives.unembed_parameters(g, x))


@pytest.mark.parametrize("module", [derivatives, threaded, compiled])
def test_looking_up(module: Any) -> None:
    table, g, ids = normal(6, 3), normal(2, 4, 3, seed=1), np.array([[1, 1, 5, 1], [0, 5, 1, 2]])
    agrees(lambda table: table[ids], table, g, module.look_up(g, ids, np.zeros_like(table)))
    before = normal(6, 3, seed=2)
    np.testing.assert_allclose(
        module.look_up(g, ids, before.copy()) - before, module.look_up(g, ids, np.zeros_like(table)), atol=1e-14
    )


@pytest.mark.parametrize("wrong", [-1, 5])
def test_an_id_outside_of_the_table_is_refused_before_memory_is_written(wrong: int) -> None:
    table = np.zeros((5, 3), np.float32)
    with pytest.raises(IndexError, match=f"^ids must be between 0 and 4, got {min(wrong, 2)} to {max(wrong, 2)}$"):
        compiled.look_up(np.ones((2, 3), np.float32), np.array([2, wrong]), table)
    assert not table.any()


def test_layer_norm_whole_and_step_by_step() -> None:
    x, weight, bias, g = normal(2, 3, 6), normal(6, seed=1), normal(6, seed=2), normal(2, 3, 6, seed=3)
    epsilon = 0.01
    centred = ops.centred(x)
    scale = ops.layer_norm_scale(centred, epsilon)
    n = centred / scale
    agrees(lambda x: ops.layer_norm(x, weight, bias, epsilon), x, g, derivatives.layer_norm(g, weight, n, scale))
    agrees(ops.centred, x, g, derivatives.centred(g))
    of_scale = normal(2, 3, 1, seed=4)
    agrees(
        lambda c: ops.layer_norm_scale(c, epsilon),
        centred,
        of_scale,
        derivatives.layer_norm_scale(of_scale, centred, scale),
    )
    agrees(lambda c: c / scale, centred, g, derivatives.divided(g, scale))
    agrees(lambda s: centred / s, scale, g, derivatives.divided_scale(g, n, scale))
    agrees(lambda n: ops.scaled_and_shifted(n, weight, bias), n, g, derivatives.scaled_and_shifted(g, weight))
    of_weight, of_bias = derivatives.scaled_and_shifted_parameters(g, n)
    agrees(lambda weight: ops.scaled_and_shifted(n, weight, bias), weight, g, of_weight)
    agrees(lambda bias: ops.scaled_and_shifted(n, weight, bias), bias, g, of_bias)


def test_layer_norm_in_the_one_formula_that_textbooks_give() -> None:
    g, weight, x = normal(4, 6), normal(6, seed=1), normal(4, 6, seed=2)
    centred = ops.centred(x)
    scale = ops.layer_norm_scale(centred, 0.0)
    n, of_n = centred / scale, g * weight
    mean = of_n.mean(-1, keepdims=True)
    expected = (of_n - mean - n * (of_n * n).mean(-1, keepdims=True)) / scale
    np.testing.assert_allclose(derivatives.layer_norm(g, weight, n, scale), expected, atol=1e-14)


def test_layer_norm_of_a_constant_position_without_epsilon_has_no_nan() -> None:
    zero, scale = np.zeros((1, 4)), np.zeros((1, 1))
    np.testing.assert_array_equal(derivatives.layer_norm_scale(np.ones((1, 1)), zero, scale), zero)


def test_attention_whole_and_step_by_step() -> None:
    B, T, H, K = 2, 5, 3, 4
    q, k, v, g = (normal(B, T, H, K, seed=seed) for seed in range(4))
    scale, keys, values = 0.37, k.swapaxes(1, 2), v.swapaxes(1, 2)
    scores = ops.attention_scores(q, keys, NONE, scale)
    pattern = ops.softmax(scores)
    of_q, of_k, of_v = derivatives.attention(g, q, k, v, pattern, scale)
    agrees(lambda q: ops.attention(q, keys, values, NONE, scale), q, g, of_q)
    agrees(lambda k: ops.attention(q, k.swapaxes(1, 2), values, NONE, scale), k, g, of_k)
    agrees(lambda v: ops.attention(q, keys, v.swapaxes(1, 2), NONE, scale), v, g, of_v)
    agrees(lambda pattern: ops.mix_values(pattern, values), pattern, g, derivatives.mix_values(g, v))
    agrees(lambda v: ops.mix_values(pattern, v.swapaxes(1, 2)), v, g, derivatives.mix_values_v(g, pattern))
    of_pattern = normal(B, H, T, T, seed=5)
    agrees(ops.softmax, scores, of_pattern, derivatives.softmax(of_pattern, pattern))
    visible = np.tril(np.ones((T, T)))

    def seen(q: Array, k: Array) -> Array:
        return np.where(visible, ops.attention_scores(q, k.swapaxes(1, 2), NONE, scale), 0)

    of_q, of_k = derivatives.attention_scores(derivatives.hide(of_pattern), q, k, scale)
    agrees(lambda q: seen(q, k), q, of_pattern, of_q)
    agrees(lambda k: seen(q, k), k, of_pattern, of_k)


def test_heads_apart() -> None:
    x, g = normal(2, 3, 24), normal(2, 3, 24, seed=1)
    q, k, v = ops.split_heads(g, 4)
    agrees(lambda x: np.stack(ops.split_heads(x, 4)), x, np.stack([q, k, v]), derivatives.split_heads(q, k, v))
    z, weight, of_each = normal(2, 3, 4, 5), normal(20, 6, seed=1), normal(2, 3, 4, 6, seed=2)
    linear = params.Linear(weight, np.zeros(6))
    agrees(lambda z: model.head_results(z, linear), z, of_each, derivatives.head_results(of_each, weight))
    of_weight = derivatives.head_results_parameters(of_each, z)
    agrees(lambda w: model.head_results(z, params.Linear(w, np.zeros(6))), weight, of_each, of_weight)


LEARNED = {"prelu": (np.array([0.3]),), "xielu": (np.array([0.4]), np.array([-0.2]))}
KINKS = np.array([-3.0, 0.0, 3.0, 6.0, 10.0])


def around_kinks() -> Array:
    """Values from −15 to 15, none of them so near a kink that a finite difference would lie across it."""
    x = np.concatenate([np.linspace(-15, 15, 301), normal(100)])
    return x[np.abs(x[:, None] - KINKS).min(axis=1) > 1e-3]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x, learned = around_kinks(), LEARNED.get(name, ())
    step = 1e-5
    change = (ops.activate(x + step, name, learned) - ops.activate(x - step, name, learned)) / (2 * step)
    np.testing.assert_allclose(derivatives.activate(np.ones_like(x), x, name, learned), change, atol=1e-8)
    np.testing.assert_allclose(derivatives.activate(3 * x, x, name, learned), 3 * x * change, atol=1e-6)
    assert derivatives.activate(x.astype("f"), x.astype("f"), name, learned).dtype == np.float32
    found = derivatives.activate_parameters(np.cos(x), x, name, learned)
    assert len(found) == len(learned)
    for number, (of_one, one) in enumerate(zip(found, learned, strict=True)):
        others = list(learned)

        def moved(value: Array, others: list[Array] = others, number: int = number) -> Array:
            others[number] = value
            return ops.activate(x, name, tuple(others))

        agrees(moved, one, np.cos(x), of_one)


def test_activations_stay_finite_far_out() -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([-1e4, -800, -120, -90, 0, 90, 120, 800, 1e4], dtype)
        for name in ACTIVATIONS:
            with np.errstate(over="ignore", under="ignore"):
                assert np.isfinite(
                    activation_derivatives.activate(np.ones_like(x), x, name, LEARNED.get(name, ()))
                ).all(), name


def everywhere(dtype: Any) -> dict[str, tuple[Any, ...]]:
    """Arguments for every derivative, large enough to be worked out in pieces."""
    B, T, H, K, V = 2, 150, 4, 40, 1000
    D = H * K
    x, g = normal(B, T, D, dtype=dtype), normal(B, T, D, seed=1, dtype=dtype)
    scale = np.abs(normal(B, T, 1, seed=2, dtype=dtype)) + dtype(0.5)
    heads = [normal(B, T, H, K, seed=seed, dtype=dtype) for seed in range(3, 7)]
    pattern = ops.softmax(normal(B, H, T, T, seed=8, dtype=dtype))
    causal = ops.softmax(ops.attention_scores(heads[0], heads[1].swapaxes(1, 2), NONE, 0.125))
    weight, wide = normal(D, D, seed=9, dtype=dtype), normal(V, D, seed=10, dtype=dtype)
    of_logits = normal(B, T, V, seed=11, dtype=dtype)
    few = of_logits * (np.arange(T) % 7 == 0)[:, None].astype(dtype)
    return {
        "linear": (g, weight),
        "linear_parameters": (g, x),
        "unembed": (of_logits, wide),
        "unembed few": (few, wide),
        "unembed_parameters": (of_logits, x),
        "unembed_parameters few": (few, x),
        "layer_norm": (g, normal(D, dtype=dtype), x, scale),
        "scaled_and_shifted": (g, normal(D, dtype=dtype)),
        "scaled_and_shifted_parameters": (g, x),
        "divided": (g, scale),
        "divided_scale": (g, x, scale),
        "layer_norm_scale": (scale, x, scale),
        "centred": (g,),
        "attention": (*heads, causal, 0.125),
        "mix_values": tuple(heads[:2]),
        "mix_values_v": (heads[0], pattern),
        "softmax": (normal(B, H, T, T, dtype=dtype), pattern),
        "attention_scores": (pattern, *heads[:2], 0.125),
        "attention_scores causal": (causal, *heads[:2], 0.125),
        "hide": (pattern,),
        "split_heads": tuple(heads[:3]),
        "head_results": (normal(B, T, H, D, dtype=dtype), weight),
        "head_results_parameters": (normal(B, T, H, D, dtype=dtype), heads[0]),
        "activate": (g, x, "gelu_new"),
        "activate_parameters": (g, x, "prelu", (np.array([0.25], dtype),)),
    }


@pytest.mark.parametrize("twin", [threaded, compiled])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", everywhere(np.float32))
def test_every_core_computes_the_same(name: str, dtype: Any, twin: Any) -> None:
    arguments, function = everywhere(dtype)[name], name.split()[0]
    given = [np.array(one) if isinstance(one, np.ndarray) else one for one in arguments]
    expected, found = (getattr(module, function)(*arguments) for module in (derivatives, twin))
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == dtype
        tolerance = (2e-5 if dtype == np.float32 else 1e-13) * np.abs(one).max()
        np.testing.assert_allclose(other, one, atol=tolerance, rtol=0)
    for before, after in zip(given, arguments, strict=True):  # nothing is changed in place
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_s_twin(dtype: Any) -> None:
    logits, labels = 5 * normal(9, 9001, dtype=dtype), np.arange(9) * 1000
    logits[0, 0], logits[1] = 90, -1e30
    shares = np.linspace(0, 1, 9).astype(dtype)
    shares[3] = 0  # a position that isn't counted
    results = []
    for module in (derivatives, threaded, compiled):
        out = np.full_like(logits, np.nan)
        results.append((module.cross_entropy(logits, labels, shares, out), out))
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    p = np.exp(wide)
    losses = np.log(p.sum(axis=1)) - wide[np.arange(9), labels]
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(9), labels] -= 1
    for found, gradient in results:
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, losses, rtol=3e-7 if dtype == np.float32 else 1e-13)
        np.testing.assert_allclose(gradient, p * shares[:, None], atol=3e-7 if dtype == np.float32 else 1e-14)


def test_every_derivative_has_its_twin() -> None:
    names = {name for name, value in vars(derivatives).items() if callable(value) and not name.startswith("_")}
    for name in names - {"as_array", "Array", "Any"}:
        assert callable(getattr(threaded, name)), name
        assert callable(getattr(compiled, name)), name
    assert {name.split()[0] for name in everywhere(np.float32)} | {"look_up", "cross_entropy"} == names - {
        "as_array",
        "Array",
        "Any",
    }


def test_joined_rows_are_the_same_operations() -> None:
    x, weight, bias = normal(3, 7, 5), normal(5, 4, seed=1), normal(4, seed=2)
    np.testing.assert_allclose(joined.linear(x, weight, bias), threaded_ops.linear(x, weight, bias), atol=1e-14)
    np.testing.assert_allclose(joined.unembed(x, weight.T), threaded_ops.unembed(x, weight.T), atol=1e-14)
    q, k, v, lengths = normal(2, 4, 3, 5), normal(2, 3, 9, 5, seed=1), normal(2, 3, 9, 5, seed=2), np.array([5, 2])
    np.testing.assert_allclose(
        joined.attention(q, k, v, lengths, 0.3), threaded_ops.attention(q, k, v, lengths, 0.3), atol=1e-14
    )
    operations = {
        name for name in vars(threaded_ops).keys() & vars(ops).keys() if inspect.isfunction(getattr(ops, name))
    }
    assert "attention" in operations
    assert operations <= vars(joined).keys()
    assert operations <= vars(joined_compiled).keys()
    found = joined_compiled.attention(*(one.astype("f") for one in (q, k, v)), lengths, 0.3)
    np.testing.assert_allclose(found, threaded_ops.attention(q, k, v, lengths, 0.3), atol=1e-6)


@pytest.mark.parametrize("x", [-1e4, -90, -10, -3, -1e-3, 0, 1e-3, 3, 10, 90, 1e4])
def test_gelu_s_kernel_holds_far_out(x: float) -> None:
    one, wide = np.full((1, 3), x, np.float32), np.full((1, 3), x)
    for name in ("gelu_new", "gelu_pytorch_tanh"):
        found = compiled.activate(np.float32(2) * np.ones_like(one), one, name)
        np.testing.assert_allclose(found, derivatives.activate(2 * np.ones_like(wide), wide, name), atol=1e-6)
