"""Dictionaries against SAELens: every architecture that it writes, and the files of its older versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dictionary_folders import CONFIGS, random_dictionary, tensors, unpack
from hypothesis import given
from hypothesis import strategies as st

from gpt2_np.internals import dictionaries
from gpt2_np.internals.dictionaries import activation_functions, compiled_functions, products
from gpt2_np.internals.dictionaries.activation_functions import largest
from gpt2_np.internals.dictionaries.folding import folded
from gpt2_np.internals.dictionaries.products import implementation, product

ACROSS = {"d_in": 12, "d_sae": 40, "d_out": 12}


@pytest.mark.parametrize("name", CONFIGS)
def test_features_and_reconstructions_are_those_of_saelens(name: str, tmp_path: Path) -> None:
    dictionary, expected = dictionaries.load(unpack(name, tmp_path)), tensors(name, ":")
    x, shape = expected["x"], expected["reconstruction"].shape
    features = dictionary.encode(x)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features != 0, expected["features"] != 0)
    np.testing.assert_allclose(features, expected["features"], atol=1e-5)
    np.testing.assert_allclose(dictionary.decode(features, x).reshape(shape), expected["decoded"], atol=1e-5)
    np.testing.assert_allclose(dictionary.reconstruct(x), expected["reconstruction"], atol=1e-5)
    assert 0 < (features != 0).mean() < 0.9


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_autograd(name: str, tmp_path: Path) -> None:
    dictionary, expected = dictionaries.load(unpack(name, tmp_path)), tensors(name, ":")
    found = dictionary.gradient(expected["x"], expected["reconstruction"])
    np.testing.assert_allclose(found, expected["gradient"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_is_what_is_loaded(name: str, tmp_path: Path) -> None:
    one = dictionaries.load(unpack(name, tmp_path / "a"))
    dictionaries.save(one, tmp_path / "b")
    other, x = dictionaries.load(tmp_path / "b"), tensors(name, ":")["x"]
    np.testing.assert_array_equal(one.encode(x), other.encode(x))
    np.testing.assert_array_equal(one.reconstruct(x), other.reconstruct(x))
    assert (one.config.hook_name, one.config.hook_name_out) == (other.config.hook_name, other.config.hook_name_out)
    dictionaries.save(one, tmp_path / "half", dtype="float16")
    half = dictionaries.load(tmp_path / "half")
    assert half.tensors["W_dec"].dtype == np.float32
    np.testing.assert_allclose(half.tensors["W_dec"], one.tensors["W_dec"], rtol=1e-3, atol=1e-4)


def test_some_features_alone_are_those_among_all() -> None:
    x = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    for name in ("standard", "topk", "jumprelu", "gated"):
        config = ACROSS | {"architecture": name, "k": 3 if name == "topk" else None}
        dictionary = random_dictionary(config, scale=0.5)
        only = np.array([3, 17, 39])
        np.testing.assert_allclose(dictionary.encode_some(x, only), dictionary.encode(x)[:, only], atol=1e-5)
        assert dictionary.encode_some(x, np.zeros(0, int)).shape == (7, 0)


@given(
    st.integers(1, 30).flatmap(
        lambda F: st.tuples(
            st.lists(st.lists(st.integers(-3, 6), min_size=F, max_size=F), min_size=1, max_size=4), st.integers(1, F)
        )
    )
)
def test_the_largest_are_those_of_a_stable_sort(case: tuple[list[list[int]], int]) -> None:
    values, k = np.array(case[0], np.float32), case[1]
    rows, columns = largest(values, k)
    expected = [
        (row, column)
        for row, some in enumerate(values)
        for column in np.argsort(-some, kind="stable")[:k]
        if some[column] > 0
    ]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def test_the_largest_of_many_are_those_of_a_sort() -> None:
    values = np.random.default_rng(1).normal(size=(5, 3000)).astype(np.float32)
    rows, columns = largest(values, 32)
    np.testing.assert_array_equal(columns.reshape(5, 32), np.argsort(-values, axis=1)[:, :32])
    np.testing.assert_array_equal(rows, np.repeat(np.arange(5), 32))


def test_a_sparse_product_is_the_dense_one() -> None:
    random = np.random.default_rng(2)
    features = np.where(random.random((4, 30000)) < 0.001, random.random((4, 30000)), 0).astype(np.float32)
    directions = random.normal(size=(30000, 64)).astype(np.float32)
    np.testing.assert_allclose(product(features, directions), features @ directions, atol=1e-4)
    assert product(features[:0], directions).shape == (0, 64)
    for functions in (activation_functions, compiled_functions):
        out = np.full((4, 64), np.nan, np.float32)
        functions.sparse_product(features, directions, out)
        np.testing.assert_allclose(out, features @ directions, atol=1e-4)


def test_a_factor_of_training_is_folded() -> None:
    scaled = random_dictionary(
        ACROSS | {"architecture": "standard", "normalize_activations": "expected_average_only_in"}
    )
    plain, x = folded(scaled, 0.25), np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    assert plain.config.normalize_activations == "none"
    np.testing.assert_allclose(plain.encode(x), scaled.encode(x * 0.25), atol=1e-5)
    np.testing.assert_allclose(plain.reconstruct(x), scaled.reconstruct(x * 0.25) / 0.25, atol=1e-5)


def test_what_reading_needs_is_said_in_one_line() -> None:
    normalised = random_dictionary(ACROSS | {"architecture": "standard", "normalize_activations": "layer_norm"})
    with pytest.raises(ValueError, match="give decode that input as well"):
        normalised.decode(np.zeros((1, 40), np.float32))
    with pytest.raises(ValueError, match=r"features must be 40 wide, got \(1, 12\)"):
        normalised.decode(np.zeros((1, 12), np.float32))
    with pytest.raises(ValueError, match=r"reads vectors of 12, got the shape \(3, 11\)"):
        normalised.encode(np.zeros((3, 11)))
    with pytest.raises(ValueError, match="has no hook_name"):
        _ = normalised.hook_name
    assert normalised.encode(np.zeros((3, 12), np.float64)).dtype == np.float64


def test_a_row_with_nan_stays_one() -> None:
    values = np.array([[1, np.nan, 3, 2, 0, 5], [1, 2, 3, 4, 5, 6]], np.float32)
    rows, columns = largest(values, 2)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 5), (0, 1), (1, 5), (1, 4)]


@pytest.mark.parametrize("kind", ["normal", "equal", "nan", "negative"])
@pytest.mark.parametrize(("n", "F", "k"), [(3, 24576, 32), (4, 100, 7), (3, 40, 40), (2, 1, 1), (6, 3001, 64)])
def test_compiled_activation_functions_have_the_bits_of_the_readable_ones(n: int, F: int, k: int, kind: str) -> None:
    random = np.random.default_rng(F)
    pre = random.normal(size=(n, F)).astype(np.float32)
    if kind == "equal":
        pre = np.round(pre * 2) / 2
    elif kind == "nan":
        pre[0, F // 2], pre[-1, 0] = np.nan, np.inf
    elif kind == "negative":
        pre = -np.abs(pre)
    bias = np.round(random.normal(size=F)).astype(np.float32) / 2
    positive, threshold = np.exp(bias), random.normal(size=F).astype(np.float32)
    for name, arguments, words in (
        ("relu", (bias,), {}),
        ("jumprelu", (bias, threshold), {}),
        ("gated", (bias, positive, threshold), {}),
        ("topk", (bias, k), {}),
        ("topk", (bias, k, positive), {}),
        ("topk", (bias, k), {"signed": True}),
    ):
        one, other = pre.copy(), pre.copy()
        getattr(activation_functions, name)(one, *arguments, **words)
        getattr(compiled_functions, name)(other, *arguments, **words)
        np.testing.assert_array_equal(other, one, err_msg=name)


def test_many_features_are_encoded_by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = random_dictionary(ACROSS | {"architecture": "topk", "k": 3}, scale=0.5)
    x = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    tensors = dictionary.tensors.values()
    assert implementation(np.zeros((7, 40), np.float32), *tensors) is activation_functions
    readable = dictionary.encode(x)
    monkeypatch.setattr(products, "LARGE", 7 * 40)
    assert implementation(np.zeros((7, 40), np.float32), *tensors) is compiled_functions
    assert implementation(np.zeros((7, 40)), *tensors) is activation_functions
    np.testing.assert_array_equal(dictionary.encode(x), readable)
