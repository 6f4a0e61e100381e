"""AdamW, clipping, accumulation and schedules against torch's and transformers' own."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from gradient_reference import ours
from hypothesis import given
from hypothesis import strategies as st
from reference import random_ids, reference_model
from transformers import get_scheduler

from gpt2_np import GPT2
from gpt2_np.engine.kernels import adamw as kernel
from gpt2_np.model.params import flatten
from gpt2_np.session.model import Model
from gpt2_np.training import AdamW, clipping, loss_and_gradients, norm, schedule, update
from gpt2_np.training.tree import leaves

RNG = np.random.default_rng(0)


def torch_steps(reference: Any, rows: np.ndarray, rates: list[float], clip: float | None, **settings: Any) -> list:
    """The losses of as many steps of torch's own AdamW, which changes `reference`."""
    groups: Any = reference.parameters()
    if settings.pop("decayed", "all") == "matrices":
        everything, decay = list(reference.parameters()), settings.pop("weight_decay", 0.01)
        groups = [
            {"params": [one for one in everything if one.ndim >= 2], "weight_decay": decay},
            {"params": [one for one in everything if one.ndim < 2], "weight_decay": 0.0},
        ]
    optimizer = torch.optim.AdamW(groups, lr=rates[0], **settings)
    losses = []
    for row, rate in zip(rows, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = reference(torch.tensor(row[:, :-1])).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(row[:, 1:]).flatten())
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(reference.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


def our_steps(
    model: Model, rows: np.ndarray, rates: list[float], clip: float | None, parts: int, donate: bool, adamw: AdamW
) -> tuple[list[float], Model]:
    losses, state = [], None
    for row, rate in zip(rows, rates, strict=True):
        batches = [(part[:, :-1], part[:, 1:]) for part in np.array_split(row, parts)]
        loss, grads = loss_and_gradients(model, batches)
        params, state = adamw.step(
            model.params, grads, state, donate, learning_rate=rate, scale=clipping(norm(grads), clip)
        )
        model = Model(params, model.config, backend="numpy")
        losses.append(loss)
    return losses, model


@pytest.mark.parametrize(
    ("decayed", "tied", "clip"), [("all", True, None), ("all", False, 0.7), ("matrices", True, 0.7)]
)
def test_a_hundred_steps_in_float64_are_torch_s(decayed: Any, tied: bool, clip: float | None) -> None:
    reference = reference_model(tie_word_embeddings=tied, n_layer=2).double()
    model = ours(reference)
    before = {name: array.copy() for name, array in flatten(model.params)}
    rows = np.stack([random_ids(4, 9, seed=number % 5) for number in range(100)])
    rates = [0.01 * schedule.share("cosine", step, 10, 100) for step in range(100)]
    settings = {"betas": (0.9, 0.95), "weight_decay": 0.1}
    adamw = AdamW(0.01, decayed=decayed, **settings)
    # torch's module shares the arrays, so ours goes first and gives back what it was given, unchanged.
    losses, trained = our_steps(model, rows, rates, clip, 2, False, adamw)
    for name, array in flatten(model.params):
        assert np.array_equal(array, before[name])
    donated, _ = our_steps(Model(model.params, model.config), rows[:3], rates[:3], clip, 2, True, adamw)
    reference = reference_model(tie_word_embeddings=tied, n_layer=2).double()
    expected = torch_steps(reference, rows, rates, clip, decayed=decayed, **settings)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert donated == losses[:3]
    assert expected[-1] < expected[0] - 1
    theirs = {name.removeprefix("transformer."): x.detach().numpy() for name, x in reference.named_parameters()}
    for name, array in flatten(trained.params):
        scale = np.abs(theirs[name]).max()
        assert np.abs(array - theirs[name]).max() <= 1e-9 * scale, name
    assert (trained.params.lm_head is trained.params.wte) is tied


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_hundred_steps_in_float32(backend: Any) -> None:
    reference = reference_model(n_layer=2)
    model = ours(reference_model(n_layer=2))
    rows = np.stack([random_ids(2, 17, seed=number % 5) for number in range(100)])
    losses, _ = our_steps(model, rows, [1e-3] * 100, None, 1, True, AdamW(1e-3, backend=backend))
    expected = torch_steps(reference, rows, [1e-3] * 100, None)
    assert np.abs(np.subtract(losses, expected)).max() <= 1e-5
    assert expected[-1] < expected[0] - 1


@given(
    n=st.integers(1, 70),
    step=st.integers(1, 1000),
    rate=st.floats(0, 1),
    decay=st.floats(0, 1),
    scale=st.sampled_from([1.0, 0.3]),
    seed=st.integers(0, 999),
)
def test_the_kernel_and_its_twin_agree(n: int, step: int, rate: float, decay: float, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    arrays = [random.normal(size=n).astype(np.float32) for _ in range(4)]
    arrays[3] = np.abs(arrays[3])
    copies = [array.copy() for array in arrays]
    c = update.constants(step, rate, (0.9, 0.99), 1e-8, decay, scale)
    kernel.adamw(*arrays, c)
    update.adamw(*copies, c)
    for ours_, readable in zip(arrays, copies, strict=True):
        np.testing.assert_allclose(ours_, readable, rtol=2e-6, atol=2e-6)
    assert np.array_equal(arrays[1], copies[1])


def test_with_donate_the_buffers_are_used_again_and_the_bits_are_the_same() -> None:
    adamw = AdamW(0.1)
    params, grads = (
        {"a": RNG.normal(size=(5, 3)).astype(np.float32), "b": (RNG.normal(size=7).astype(np.float32),)} for _ in "ab"
    )
    kept, state = adamw.step(params, grads, None)
    kept2, state2 = adamw.step(kept, grads, state)
    again, state = adamw.step(kept, grads, state, donate=True)
    assert again["a"] is kept["a"]
    assert leaves(state.mean)[0] is not leaves(state2.mean)[0]
    for one, other in zip(leaves((kept2, state2.mean)), leaves((again, state.mean)), strict=True):
        assert np.array_equal(one, other)
    frozen = {"a": params["a"].copy(), "b": params["b"]}
    frozen["a"].flags.writeable = False  # as mapped from a file
    moved, _ = adamw.step(frozen, grads, None, donate=True)
    assert moved["a"] is not frozen["a"]


def test_a_gradient_s_norm_and_what_clipping_makes_of_it() -> None:
    grads = {"a": RNG.normal(size=(300, 500)).astype(np.float32), "b": RNG.normal(size=3).astype(np.float32)}
    tensors = [torch.tensor(one, requires_grad=True) for one in grads.values()]
    for tensor, one in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.tensor(one)
    length = norm(grads)
    assert length == pytest.approx(torch.nn.utils.clip_grad_norm_(tensors, 2.0).item(), rel=1e-6)
    np.testing.assert_allclose(grads["a"] * clipping(length, 2.0), tensors[0].grad.numpy(), rtol=1e-5)
    assert clipping(1.0, 2.0) == clipping(1e9, None) == 1.0
    grads["b"][1] = np.nan
    assert np.isnan(norm(grads))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_micro_batches_of_unequal_tokens_add_up_to_one_batch(parts: int) -> None:
    model = ours(reference_model(n_layer=1).double())
    ids = random_ids(4, 9)
    labels = np.where(np.arange(8) < np.array([8, 3, 5, 1])[:, None], ids[:, 1:], -100)
    loss, grads = loss_and_gradients(model, [(ids[:, :-1], labels)])
    split = [(a[:, :-1], b) for a, b in zip(np.array_split(ids, parts), np.array_split(labels, parts), strict=True)]
    loss2, grads2 = loss_and_gradients(model, split)
    assert loss2 == pytest.approx(loss, rel=1e-12)
    reference = reference_model(n_layer=1).double()
    logits = reference(torch.tensor(ids[:, :-1])).logits.flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(labels).flatten())
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grads.wpe, reference.transformer.wpe.weight.grad.numpy(), rtol=1e-9, atol=1e-14)
    for one, other in zip(leaves(grads), leaves(grads2), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-14)


def test_logits_that_an_edit_puts_there_are_not_written_over() -> None:
    model, ids = ours(reference_model(n_layer=1)), random_ids(2, 9)
    logits = model(ids[:, :-1])
    mine = logits.copy()
    loss, grads = loss_and_gradients(model.with_edits({"unembed": mine}), [(ids[:, :-1], ids[:, 1:])])
    np.testing.assert_array_equal(mine, logits)
    assert loss == pytest.approx(loss_and_gradients(model, [(ids[:, :-1], ids[:, 1:])])[0], rel=1e-6)
    assert not any(one.any() for one in leaves(grads))


@pytest.mark.parametrize("name", schedule.SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(0, 20), (5, 20), (20, 20), (1, 1)])
def test_schedules_are_transformers_own(name: str, warmup: int, steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    more = {"scheduler_specific_kwargs": {"min_lr_rate": 0.1}} if name == "cosine_with_min_lr" else {}
    theirs = get_scheduler(name, optimizer, warmup, steps, **more)
    for step in range(steps + 1):
        assert schedule.share(name, step, warmup, steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(-1.0), "learning_rate must be at least 0 and finite, got -1.0"),
        (lambda: AdamW(float("nan")), "learning_rate must be at least 0 and finite, got nan"),
        (lambda: AdamW(1.0, betas=(0.9, 1.0)), r"betas must be two numbers in \[0, 1\)"),
        (lambda: AdamW(1.0, decayed="some"), "decayed must be one of all, matrices, got 'some'"),
        (lambda: AdamW(1.0, backend="torch"), "backend must be one of numba, numpy, got 'torch'"),
        (lambda: AdamW(1.0).step((np.zeros(2, np.int8),), (np.zeros(2),), None), "float32 or float64 to be trained"),
        (lambda: AdamW(1.0).step((np.zeros(2),), (np.zeros(3),), None), "of its parameter's shape and dtype"),
        (lambda: AdamW(1.0).step((np.zeros(2),), (), None), "a gradient for each of 1 parameters, got 0"),
        (lambda: schedule.share("step", 0, 0, 1), "schedule must be one of constant, .*, got 'step'"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_nothing_keeps_a_step_s_gradients() -> None:
    """They are as large as the model, and the next step needs the room before the garbage collector comes."""
    model, rows = GPT2.from_pretrained(), np.arange(18).reshape(2, 9)
    gc.collect()
    gc.disable()
    try:
        _, grads = loss_and_gradients(model, [(rows[:, :-1], rows[:, 1:])])
        params, state = AdamW(1e-3).step(model.params, grads, None)
        params, state = AdamW(1e-3).step(params, grads, state, True)
        given = [weakref.ref(one) for one in leaves(grads)]
        del grads
        assert not any(one() is not None for one in given)
    finally:
        gc.enable()
