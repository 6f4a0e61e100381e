"""A run with gradients as users ask for it: shapes, rows of unequal lengths, precision, memory, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradient_reference import Graph, ours, parameter_gradients, transformed
from reference import random_ids, reference_model

from gpt2_np import GPT2, gradients
from gpt2_np.gradients import (
    check_gradient,
    cross_entropy,
    heads,
    joined,
    kl_divergence,
    log_probability,
    logit_difference,
)
from gpt2_np.gradients.check import in_float64
from gpt2_np.gradients.edited import Edited
from gpt2_np.gradients.kept import POINTWISE, Kept
from gpt2_np.model.edits import Edit
from gpt2_np.model.forward import forward
from gpt2_np.model.params import assemble, flatten, map_arrays
from gpt2_np.model.taps import ON_REQUEST, Capture, both, points, sizes
from gpt2_np.session.model import Model

REFERENCE = reference_model()
MODEL = ours(REFERENCE)
EVERYTHING = ["*", *(f"*.{name}" for name in ON_REQUEST)]
IDS = random_ids(2, 10)
ROWS = [row.tolist() for row in (IDS[0, :7], IDS[1], IDS[0, :2])]


class LastLogit:
    """A metric of one's own: the logit of id 5 at the last position."""

    def value(self, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return logits[:, -1, 5]

    def gradient(self, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
        gradient = np.zeros_like(logits)
        gradient[:, -1, 5] = 1
        return gradient


@pytest.mark.parametrize("ids", [IDS, IDS[0], IDS.tolist(), IDS[0].tolist(), [IDS[0]], ROWS])
def test_shapes(ids: Any) -> None:
    run = MODEL.run_with_gradients(ids, cross_entropy(), EVERYTHING)
    several = isinstance(ids[0], (list, np.ndarray))
    B, T = (len(ids), max(len(row) for row in ids)) if several else (1, len(ids))
    known = sizes(MODEL.config) | {"B": B, "T": T, "S": T}
    assert run.value.shape == (B,)
    assert run.logits.shape == ((B, T, 97) if several else (T, 97))
    assert run.lengths.tolist() == ([len(row) for row in ids] if several else [T])
    for name, letters in points(MODEL.config).items():
        shape = tuple(known[letter] for letter in letters.split())
        assert run.grads[name].shape == run.cache[name].shape == shape
        assert run.grads[name].dtype == run.cache[name].dtype == np.float32
    assert run.params is None


def test_names_are_those_of_a_capture() -> None:
    run = MODEL.run_with_gradients(IDS, cross_entropy(), "blocks.*.hook_resid_pre")
    assert list(run.grads) == list(run.cache) == [f"blocks.{layer}.resid_pre" for layer in range(3)]
    np.testing.assert_array_equal(run.grads["blocks.1.hook_resid_pre"], run.grads["resid_pre", 1])
    assert "blocks.0.attn.result" not in MODEL.run_with_gradients(IDS, cross_entropy()).grads
    logits, cache = MODEL.run_with_cache(IDS[:1])
    run = MODEL.run_with_gradients(IDS[:1], cross_entropy())
    np.testing.assert_array_equal(run.logits, logits)
    for name, x in cache.items():
        np.testing.assert_array_equal(run.cache[name], x)


METRICS = [
    cross_entropy(),
    logit_difference([3, 4, 5], 9),
    log_probability(5, [0, 3, 1]),
    kl_divergence(np.random.default_rng(0).standard_normal((3, 10, 97))),
    LastLogit(),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_unequal_rows_are_as_if_each_were_alone(metric: Any) -> None:
    model = exact()
    run = model.run_with_gradients(ROWS, metric, parameters=True)
    total = {name: np.zeros_like(x) for name, x in flatten(model.params)}
    for number, row in enumerate(ROWS):
        one = metric.of_row(number) if hasattr(metric, "of_row") else metric
        alone = model.run_with_gradients(row, one, parameters=True)
        np.testing.assert_allclose(run.value[number], alone.value[0], rtol=1e-12)
        np.testing.assert_allclose(run.logits[number, : len(row)], alone.logits, atol=1e-12)
        for name, x in alone.grads.items():
            got = run.grads[name][number]
            axes = [letter in "TS" for letter in points(model.config)[name].split()[1:]]
            inside = tuple(slice(len(row)) if axis else slice(None) for axis in axes)
            np.testing.assert_allclose(got[inside], x[0], atol=1e-12, err_msg=name)
            got = got.copy()
            got[inside] = 0
            assert not got.any(), name  # behind the row's end nothing at all
        assert alone.params is not None
        for name, x in flatten(alone.params):
            total[name] += x
    assert run.params is not None
    for name, x in flatten(run.params):
        np.testing.assert_allclose(x, total[name], atol=1e-11, err_msg=name)


def exact() -> Model:
    return MODEL.with_params(in_float64(MODEL.params))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ids", [IDS, ROWS], ids=["equal", "unequal"])
def test_however_much_is_kept_the_bits_are_the_same(ids: Any, dtype: str) -> None:
    model = MODEL if dtype == "float32" else exact()
    metric, ways = cross_entropy(), ("all", "layers", "inputs")
    runs = [model.run_with_gradients(ids, metric, parameters=True, keep=keep) for keep in ways]
    few = model.run_with_gradients(ids, metric, ["*.ln1.in", "*.attn.q"], keep="inputs")
    for run in runs[1:]:
        np.testing.assert_array_equal(run.logits, runs[0].logits)
        for name, x in runs[0].grads.items():
            np.testing.assert_array_equal(run.grads[name], x)
        assert runs[0].params is not None
        assert run.params is not None
        for (_, one), (_, other) in zip(flatten(run.params), flatten(runs[0].params), strict=True):
            assert one.dtype == dtype
            np.testing.assert_array_equal(one, other)
    for name, x in few.grads.items():  # nor does it matter who looks
        np.testing.assert_array_equal(x, runs[0].grads[name])


@pytest.mark.parametrize("edited", [False, True])
def test_what_a_pass_over_kept_values_makes_is_kept_only_where_something_is_edited(edited: bool) -> None:
    edits = Edited(MODEL.with_edits({"blocks.0.mlp.hook_post": Edit(lambda x: 2 * x, lambda x, g: 2 * g)}).tap)
    kept = Kept(MODEL.params, MODEL.config, joined, edited=edits if edited else None, parameters=True)
    capture = Capture([f"blocks.0.{name}" for name in kept.needed])
    forward(MODEL.params, MODEL.config, IDS, ops=joined, tap=both(kept.tap, capture))
    assert all((f"blocks.0.{name}" in kept.left) is edited for name in POINTWISE)
    values = kept.block(0)
    for name in kept.needed:
        np.testing.assert_array_equal(values[name], capture.values[f"blocks.0.{name}"])


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_what_nobody_looks_at_is_the_same_to_rounding(backend: str) -> None:
    model = Model(MODEL.params, MODEL.config, backend=backend)
    truth = exact().run_with_gradients(IDS, cross_entropy(), parameters=True)
    assert truth.params is not None
    bits = []
    for keep in ("all", "layers", "inputs"):
        run = model.run_with_gradients(IDS, cross_entropy(), (), parameters=True, keep=keep)
        assert run.params is not None
        np.testing.assert_allclose(run.logits, truth.logits, atol=1e-5)
        for (name, one), (_, other) in zip(flatten(run.params), flatten(truth.params), strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max() + 1e-7, err_msg=name)
        bits.append([one.tobytes() for _, one in flatten(run.params)])
    assert bits[0] == bits[1] == bits[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nor_where_attention_goes_block_by_block(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "BLOCK", 4)
    test_however_much_is_kept_the_bits_are_the_same(IDS, dtype)


def root_mean_square(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


@pytest.mark.parametrize("fields", [{}, {"activation_function": "gelu"}, {"n_layer": 4, "n_embd": 96, "n_head": 3}])
def test_float32_is_as_exact_as_torch(fields: dict) -> None:
    """The error against float64, at every name and of every parameter, is at most 1.5 × torch's, over four models."""
    ours_squared, theirs_squared = ({}, {})
    for seed in range(4):
        reference, ids = reference_model(seed, **fields), random_ids(4, 48, seed=seed)
        found: list[dict[str, np.ndarray]] = []
        for model in (ours(reference), ours(reference).with_params(in_float64(ours(reference).params))):
            run = model.run_with_gradients(ids, cross_entropy(), parameters=True)
            assert run.params is not None
            found.append(dict(run.grads) | dict(flatten(run.params)))
        graph = Graph()
        logits = transformed(reference, ids, graph)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 97), torch.tensor(ids[:, 1:].reshape(-1)))
        (4 * loss).backward()
        theirs = graph.gradients() | parameter_gradients(reference)
        unobserved = ours(reference).run_with_gradients(ids, cross_entropy(), (), parameters=True)
        assert unobserved.params is not None
        for name, y in flatten(unobserved.params):  # what the kernels make of them
            known = f"{name} unobserved".replace("c_attn.bias unobserved", "unobserved c_attn.bias")
            found[0][known], found[1][known], theirs[known] = y, found[1][name], theirs[name]
        for name, x in found[1].items():
            single, other, width = found[0][name], theirs[name], len(x) // 3
            if name.endswith("c_attn.bias"):  # the keys' part of it is truly 0
                single, other, x = (np.delete(y, np.s_[width : 2 * width]) for y in (single, other, x))
            for errors, y in ((ours_squared, single), (theirs_squared, other)):
                errors[name] = errors.get(name, 0) + np.square(y - x).mean()
    for name, squared in ours_squared.items():
        assert np.sqrt(squared) <= 1.5 * np.sqrt(theirs_squared[name]), name


def test_gradients_add_up() -> None:
    """Identities that hold whatever the weights are."""
    run = exact().run_with_gradients(IDS, cross_entropy(), EVERYTHING, parameters=True)
    g = run.grads
    assert run.params is not None
    for layer in range(3):
        np.testing.assert_allclose(g["resid_pre", layer], g["resid_mid", layer] + g["ln1.in", layer], atol=1e-15)
        np.testing.assert_allclose(g["resid_mid", layer], g["resid_post", layer] + g["ln2.in", layer], atol=1e-15)
        np.testing.assert_array_equal(g["mlp_out", layer], g["resid_post", layer])
        np.testing.assert_array_equal(g["attn_out", layer], g["resid_mid", layer])
        np.testing.assert_array_equal(g["result", layer][:, :, 1], g["attn_out", layer])
        np.testing.assert_allclose(g["ln1.in", layer].sum(-1), 0, atol=1e-15)  # a norm doesn't see its input's mean
        np.testing.assert_allclose(g["attn_scores", layer].sum(-1), 0, atol=1e-15)  # nor softmax a constant
        assert (g["attn_scores", layer][..., np.triu(np.ones((10, 10), bool), 1)] == 0).all()
        keys = run.params.h[layer].attn.c_attn.bias[48:96]  # every query sees the same change in all its scores
        np.testing.assert_allclose(keys, 0, atol=1e-15)
    np.testing.assert_allclose(g["unembed"].sum(-1), 0, atol=1e-15)
    np.testing.assert_array_equal(g["embed"], g["blocks.0.resid_pre"])
    np.testing.assert_allclose(run.params.wpe[:10], g["pos_embed"].sum(0), atol=1e-15)
    assert not run.params.wpe[10:].any()


def test_a_tied_embedding_has_both_shares() -> None:
    model = exact()
    assert model.params.lm_head is model.params.wte
    tied = model.run_with_gradients(IDS, cross_entropy(), (), parameters=True).params
    apart = model.with_params(model.params._replace(lm_head=model.params.wte.copy()))
    untied = apart.run_with_gradients(IDS, cross_entropy(), (), parameters=True).params
    assert tied is not None
    assert untied is not None
    assert tied.lm_head is tied.wte
    np.testing.assert_allclose(untied.wte + untied.lm_head, tied.wte, atol=1e-15)
    seen = np.isin(np.arange(97), IDS[:, :-1])  # nothing follows the last
    assert not untied.wte[~seen].any()
    assert untied.wte[seen].any(axis=1).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_reduced_precision_has_gradients_of_activations_alone(dtype: str, small: Path) -> None:
    model = Model.from_pretrained(small, dtype=dtype)
    run = model.run_with_gradients(IDS, cross_entropy())
    widened = model.with_params(map_arrays(in_float64(model.params), lambda x: x.astype(np.float32)))
    plain = widened.run_with_gradients(IDS, cross_entropy())
    for name, x in plain.grads.items():  # what is multiplied is rounded too, so they only come near
        error = root_mean_square(run.grads[name] - x) / root_mean_square(x)
        assert error < {"bfloat16": 0.03, "int8": 1e-2, "int4": 0.2}[dtype], name
    with pytest.raises(ValueError, match=f"parameters=True needs weights in float32 or float64, got {dtype}"):
        model.run_with_gradients(IDS, cross_entropy(), parameters=True)
    if dtype == "bfloat16":
        assert check_gradient(model, IDS, cross_entropy(), "blocks.1.resid_mid").error < 1e-6


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_each_backend_beside_float64_and_a_step_down_the_gradient(backend: str) -> None:
    """Parameters moved a little against their gradient lower the loss by what the gradient says."""
    model = GPT2.from_pretrained(backend=backend)
    ids = list(range(30, 60))
    run = model.run_with_gradients(ids, cross_entropy(), (), parameters=True)
    exactly = model.with_params(in_float64(model.params)).run_with_gradients(ids, cross_entropy(), (), parameters=True)
    assert run.params is not None
    assert exactly.params is not None
    squared, rate = 0.0, 1e-4
    for (name, x), (_, y) in zip(flatten(run.params), flatten(exactly.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max(), err_msg=name)
        squared += float(np.square(y).sum())
    moves = dict(flatten(run.params))
    moved = assemble({name: x - rate * moves[name] for name, x in flatten(model.params)}, model.config)
    after = model.with_params(moved).run_with_gradients(ids, cross_entropy(), ())
    np.testing.assert_allclose(run.value - after.value, rate * squared, rtol=0.05)


CHECKED = """embed blocks.1.hook_resid_mid blocks.0.attn.result blocks.2.attn.attn_scores blocks.1.attn.pattern unembed
    ln_final.scale wte.weight h.1.mlp.c_fc.weight h.0.attn.c_attn.bias wpe.weight""".split()


@pytest.mark.parametrize("name", CHECKED)
def test_check_gradient(name: str) -> None:
    for metric in (cross_entropy(), logit_difference(3, 4)):
        result = check_gradient(MODEL, ROWS, metric, name)
        assert result.error < 1e-6
        assert result.gradient.shape == (3,)


def test_check_gradient_finds_what_is_wrong() -> None:
    class Twice(LastLogit):
        def gradient(self, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
            return 2 * super().gradient(logits, ids)

    with pytest.raises(
        gradients.check.GradientMismatch, match=r"of h\.1\.ln_1\.bias along 2 .* by 5\.0e-01 of the larger"
    ):
        check_gradient(MODEL, IDS, Twice(), "h.1.ln_1.bias", directions=2)
    with pytest.raises(ValueError, match=r"name must mean one activation, got '\*\.resid_pre', which means 3"):
        check_gradient(MODEL, IDS, cross_entropy(), "*.resid_pre")
    with pytest.raises(ValueError, match="directions must be at least 1, got 0"):
        check_gradient(MODEL, IDS, cross_entropy(), "embed", directions=0)
    keys = check_gradient(MODEL, IDS, cross_entropy(), "h.0.attn.c_attn.bias", directions=1)  # in part truly 0
    assert keys.error < 1e-6


def test_refusals() -> None:
    def no_gradient(logits: np.ndarray) -> np.ndarray:
        return logits[:, -1, 0]

    class Half:
        value = LastLogit.value

    class Wrong(LastLogit):
        def value(self, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
            return logits[:, -1]

    class Short(LastLogit):
        def gradient(self, logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
            return super().gradient(logits, ids)[:, -1]

    for metric, message in (
        (no_gradient, r"a metric needs a method value\(logits, ids\).*function has no \.value"),
        (Half(), r"a metric needs a method gradient\(logits, ids\), .* \(B, T, V\); Half has no \.gradient"),
        (Wrong(), r"a metric's value must have the shape \(2,\), got \(2, 97\)"),
        (Short(), r"a metric's gradient must have the shape \(2, 10, 97\), got \(2, 97\)"),
    ):
        with pytest.raises(ValueError, match=message):
            MODEL.run_with_gradients(IDS, metric)  # type: ignore[arg-type]
    for ids, message in (
        ([], "ids must be whole numbers"),
        ([[1, 2], []], "ids must be whole numbers"),
        ([[1, 2], [3, 97, 4]], "ids must be between 0 and 96, got 97"),
        ([[1, 2], 3], "each row of ids must be one text|ids must be whole numbers"),
        ([[[1, 2], [3, 4]], [5]], "each row of ids must be one text"),
        (IDS * 1.0, "ids must be whole numbers"),
        (np.zeros((1, 65), int), "the model has 64 positions, got 65 ids"),
    ):
        with pytest.raises(ValueError, match=message):
            MODEL.run_with_gradients(ids, cross_entropy())
    with pytest.raises(ValueError, match="keep must be one of all, layers, inputs, got 'some'"):
        MODEL.run_with_gradients(IDS, cross_entropy(), keep="some")
    with pytest.raises(ValueError, match=r"token_type_ids must have the shape of ids, \(2, 10\), got \(1, 3\)"):
        MODEL.run_with_gradients(IDS, cross_entropy(), token_type_ids=[1, 2, 3])
    with pytest.raises(ValueError, match="no activation is named"):
        MODEL.run_with_gradients(IDS, cross_entropy(), "blocks.9.resid_pre")
    on_torch = ours(REFERENCE)
    on_torch.implementation.backend = "torch"
    with pytest.raises(ValueError, match="gradients are taken on --backend numpy or numba, not on torch"):
        on_torch.run_with_gradients(IDS, cross_entropy())


def test_other_parameters_must_have_the_same_shapes() -> None:
    params = MODEL.params
    assert MODEL.with_params(params).params is params
    untied = params._replace(lm_head=params.wte.copy())
    assert MODEL.with_params(untied).params.lm_head is not params.wte
    for wrong, message in (
        (params._replace(wpe=params.wpe[:3]), r"wpe\.weight must have the shape \(64, 48\), got \(3, 48\)"),
        (params._replace(h=params.h[:2]), r"h\.2\.ln_1\.weight must have the shape \(48,\), got None"),
        (params._replace(lm_head=params.wte[:5]), r"lm_head\.weight must have the shape \(97, 48\), got \(5, 48\)"),
        (params._replace(h=(*params.h, params.h[0])), r"h\.3\.ln_1\.weight must have the shape None"),
    ):
        with pytest.raises(ValueError, match=message):
            MODEL.with_params(wrong)
