"""Hidden states put into other prompts, and function vectors: against torch with hooks, and where they are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gradient_reference import ours
from hypothesis import given
from hypothesis import strategies as st
from reference import random_ids, reference_model

from gpt2_np import GPT2
from gpt2_np.internals import function_vectors, patchscopes
from gpt2_np.internals.steering import steer
from gpt2_np.internals.variants import log_softmax

L, H, K = 3, 4, 12


def run(reference: Any, ids: np.ndarray, hooks: list[tuple[Any, Any]]) -> np.ndarray:
    """torch's logits of one prompt, (T, V), with hooks before modules."""
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
    with torch.no_grad():
        logits = reference(torch.tensor(ids)[None]).logits[0].numpy()
    for handle in handles:
        handle.remove()
    return logits


def kept(reference: Any, ids: np.ndarray, module: Any) -> np.ndarray:
    """What enters a module, (T, D)."""
    found: list[np.ndarray] = []
    run(reference, ids, [(module, lambda module, inputs: found.append(inputs[0][0].numpy()))])
    return found[0]


def placed(at: int, value: np.ndarray, columns: slice = slice(None)) -> Any:
    """A hook that puts a value at a position of what enters a module."""

    def hook(module: Any, inputs: tuple) -> tuple:
        x = inputs[0].clone()
        x[0, at, columns] = torch.as_tensor(value)
        return (x, *inputs[1:])

    return hook


def test_a_state_in_another_prompt_is_torchs_with_hooks() -> None:
    reference = reference_model(3).double()
    model, blocks = ours(reference), reference.transformer.h
    source, target = random_ids(1, 8, seed=1)[0], random_ids(1, 6, seed=2)[0]
    for layer, to in np.ndindex(L, L):
        state = kept(reference, source, blocks[layer])[5]
        expected = run(reference, target, [(blocks[to], placed(4, state))])
        found = patchscopes.patchscope(
            model, source, target, layer=layer, position=-3, target_layer=to, target_position=4
        )
        np.testing.assert_allclose(found(target), expected, atol=1e-10)
    doubled = patchscopes.patchscope(model, source, target, layer=2, target_position=4, mapping=lambda h: 2 * h)
    state = 2 * kept(reference, source, blocks[2])[-1]
    np.testing.assert_allclose(doubled(target), run(reference, target, [(blocks[2], placed(4, state))]), atol=1e-10)
    scores = patchscopes.sweep(model, source, target, 7)
    again = patchscopes.patchscope(model, source, target, layer=1, target_layer=2)
    np.testing.assert_allclose(scores[1, 2], log_softmax(again(target))[-1, 7], atol=1e-12)


def test_before_the_first_layer_a_state_is_the_token_itself_while_writing_too() -> None:
    model = GPT2.from_pretrained(backend="numpy")
    source, target = model.prompt_ids("One day the fox"), model.prompt_ids("One day the king saw")
    other = [*target[:3], source[3], *target[4:]]
    patched = patchscopes.patchscope(model, source, target, layer=0, position=3, target_position=3)
    np.testing.assert_allclose(patched(target), model(other), atol=1e-5)
    assert patched.generate(target, max_new_tokens=8).ids == model.generate(other, max_new_tokens=8).ids
    same = patchscopes.patchscope(model, target, target, layer=4)
    np.testing.assert_array_equal(same(target), model(target))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"layer": 3}, "layer must be between 0 and 2, got 3"),
        ({"layer": 0, "target_layer": -1}, "layer must be between 0 and 2, got -1"),
        ({"layer": 0, "position": 8}, "position must be between -8 and 7, got 8"),
        ({"layer": 0, "target_position": -7}, "position must be between -6 and 5, got -7"),
        ({"layer": 0, "mapping": lambda h: h[:3]}, r"a state must have the width 48, got shape \(3,\)"),
    ],
)
def test_a_state_that_cannot_be_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        patchscopes.patchscope(ours(reference_model()), random_ids(1, 8)[0], random_ids(1, 6)[0], **change)


def test_effects_and_vector_are_torchs_with_hooks() -> None:
    reference = reference_model(4).double()
    model, outputs = ours(reference), [block.attn.c_proj for block in reference.transformer.h]
    showing = [random_ids(1, length, seed=length)[0] for length in (5, 7, 6)]
    asking, answers = [random_ids(1, length, seed=9 + length)[0] for length in (4, 8)], [11, 23]
    means = np.stack([np.mean([kept(reference, ids, one)[-1] for ids in showing], axis=0) for one in outputs])
    found = function_vectors.mean_outputs(model, showing)
    np.testing.assert_allclose(found, means.reshape(L, H, K), atol=1e-12)

    def chance(logits: np.ndarray, answer: int) -> float:
        return float(np.exp(log_softmax(logits[-1:]))[0, answer])

    expected = np.zeros((L, H))
    for layer, head in np.ndindex(L, H):
        columns = slice(head * K, (head + 1) * K)
        for ids, answer in zip(asking, answers, strict=True):
            hook = placed(len(ids) - 1, means[layer, columns], columns)
            patched = run(reference, ids, [(outputs[layer], hook)])
            expected[layer, head] += (chance(patched, answer) - chance(run(reference, ids, []), answer)) / 2
    effects = function_vectors.indirect_effects(model, found, asking, answers, batch=5)
    np.testing.assert_allclose(effects, expected, atol=1e-12)
    best = function_vectors.best_heads(effects, 3)
    assert [effects[head] for head in best] == sorted(effects.ravel(), reverse=True)[:3]
    rows = [means[layer, head * K : (head + 1) * K] for layer, head in best]
    weights = [outputs[layer].weight.detach().numpy()[head * K : (head + 1) * K] for layer, head in best]
    vector = function_vectors.function_vector(model, found, best)
    np.testing.assert_allclose(vector, sum(row @ weight for row, weight in zip(rows, weights, strict=True)), atol=1e-12)
    ids = asking[0]
    state = kept(reference, ids, reference.transformer.h[1])[-1] + vector
    expected_logits = run(reference, ids, [(reference.transformer.h[1], placed(len(ids) - 1, state))])
    np.testing.assert_allclose(steer(model, vector, 1, positions=[len(ids) - 1])(ids), expected_logits, atol=1e-10)


@given(st.integers(0, 4), st.integers(1, 5), st.integers(0, 99))
def test_prompts_show_the_same_examples_in_order_or_shuffled(shots: int, count: int, seed: int) -> None:
    pairs = [(f"x{number}", f"y{number}") for number in range(7)]
    plain, mixed = (
        function_vectors.shown(pairs, shots=shots, count=count, seed=seed, shuffled=shuffled)
        for shuffled in (False, True)
    )
    for one, other in zip(plain, mixed, strict=True):
        *examples, last = one.prompt.split("\n\n")
        assert len(examples) == shots
        assert last == f"Q: x{one.answer.removeprefix(' y')}\nA:"
        assert all(example == example.replace("y", "x").replace("A: x", "A: y") for example in examples)
        told = [dict(line.split(": ") for line in example.split("\n")) for example in examples]
        assert all(pair["Q"][1:] == pair["A"][1:] for pair in told)
        assert last not in examples
        assert other.answer == one.answer
        assert sorted(other.prompt.split()) == sorted(one.prompt.split())
        assert [part for part in other.prompt.split() if part[0] == "x"] == [
            part for part in one.prompt.split() if part[0] == "x"
        ]


def test_what_cannot_show_a_task_is_refused() -> None:
    model = ours(reference_model())
    with pytest.raises(ValueError, match="10 examples and a question need 11 pairs, got 1"):
        function_vectors.shown([("a", "b")])
    with pytest.raises(ValueError, match="shots must be at least 0 and count at least 1, got -1 and 100"):
        function_vectors.shown([("a", "b")], shots=-1)
    with pytest.raises(ValueError, match="a mean needs at least one prompt"):
        function_vectors.mean_outputs(model, [])
    with pytest.raises(ValueError, match="equally many, at least 1, got 1 and 0"):
        function_vectors.indirect_effects(model, np.zeros((L, H, K)), [[1]], [])
    with pytest.raises(ValueError, match="count must be between 1 and 12, got 13"):
        function_vectors.best_heads(np.zeros((L, H)), 13)
