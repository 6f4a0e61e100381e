"""The training of one model: the gradients of a batch, and the weights after some steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from determinism.answers import TEXT, load
from determinism.compare import Difference, difference, worst
from gpt2_np import GPT2
from gpt2_np.gradients import cross_entropy
from gpt2_np.training import AdamW, loss_and_gradients, train
from gpt2_np.training.tree import leaves

Array = np.ndarray
Learned = dict[str, Array]
KINDS = (("float32", "numba"), ("float32", "numpy"), ("float64", "numba"))
ROWS, CONTEXT, STEPS = 4, 24, 4
NAMES = ["blocks.0.attn.q", "blocks.3.resid_pre", "blocks.7.mlp.post"]


class Stop(Exception):
    """A run that is ended in the middle."""


def batch(model: GPT2) -> tuple[Array, Array]:
    """Ids and the ids behind them: (ROWS, CONTEXT) twice."""
    text = model.tokenizer.encode(TEXT)
    rows = np.array([text[start : start + CONTEXT + 1] for start in range(0, 12 * ROWS, 12)])
    return rows[:, :-1], rows[:, 1:]


def scaled(gradients: list[Array]) -> Array:
    """All gradients in a line, as shares of the largest."""
    flat = np.concatenate([one.reshape(-1) for one in gradients])
    return flat / np.abs(flat).max()


def gradients(model: GPT2, parts: int = 1, keep: str = "all") -> Learned:
    """The gradients of a step, its rows in so many micro-batches."""
    ids, labels = batch(model)
    cut = list(zip(np.split(ids, parts), np.split(labels, parts), strict=True))
    return {"gradients": scaled(leaves(loss_and_gradients(model, cut, keep=keep)[1]))}


def learned(model: GPT2) -> Learned:
    """The gradients of a step, and the weights after STEPS of AdamW (their change, as a share of the largest)."""
    out, state, params = gradients(model), None, model.params
    adamw = AdamW(1e-4, backend=model.backend)  # type: ignore[arg-type]
    for _ in range(STEPS):
        _, found = loss_and_gradients(model.with_params(params), [batch(model)])
        params, state = adamw.step(params, found, state)
    before, after = leaves(model.params), leaves(params)
    return out | {"weights": scaled([new - old for new, old in zip(after, before, strict=True)])}


# ---- what varies within one process ----------------------------------------------------------------------------------


def again(model: GPT2) -> Difference:
    """The same steps a second time."""
    return difference(learned(model), learned(model))


def rows_apart(model: GPT2) -> Difference:
    """The gradients of each row's loss at three names: in the batch, and alone."""
    ids, _ = batch(model)
    together = model.run_with_gradients(ids, cross_entropy(), NAMES)
    found = []
    for number, row in enumerate(ids):
        alone = model.run_with_gradients(row, cross_entropy(), NAMES)
        for name in NAMES:
            one, other = together.grads[name][number], alone.grads[name].reshape(together.grads[name][number].shape)
            largest = np.abs(other).max()
            found.append(difference({"gradients": one / largest}, {"gradients": other / largest}))
    return worst(found)


def micro_batches(model: GPT2) -> Difference:
    """The gradients of a step in one batch, in two and in four."""
    own = gradients(model)
    return worst(difference(own, gradients(model, parts)) for parts in (2, 4))


def kept(model: GPT2) -> Difference:
    """The gradients where the forward pass keeps everything, or computes again what it didn't keep."""
    own = gradients(model)
    return worst(difference(own, gradients(model, keep=keep)) for keep in ("layers", "inputs"))


def resumed(model: GPT2) -> Difference:
    """The weights after a run that was ended in the middle and resumed, and after one that wasn't."""

    def stop(report: Any) -> None:
        if report.step == 3:
            raise Stop

    settings: dict[str, Any] = {
        "steps": 4,
        "save_steps": 2,
        "context": CONTEXT,
        "batch_size": 2,
        "sample_tokens": 0,
        "held_out": 0.0,
    }
    settings |= {"backend": model.backend}
    text = [model.tokenizer.encode(TEXT)]
    with tempfile.TemporaryDirectory() as folder:
        whole = train(model, text, Path(folder) / "whole", **settings)
        try:
            train(model, text, Path(folder) / "parts", report=stop, **settings)
        except Stop:
            parts = train(model, text, Path(folder) / "parts", resume=True, **settings)
        return difference(*(load_file(one / "model.safetensors") for one in (whole, parts)))


WITHIN: dict[str, Callable[[GPT2], Difference]] = {
    "the same steps again": again,
    "a run that was ended in the middle and resumed": resumed,
    "what is kept or computed again (`keep`)": kept,
    "the rest of the batch: a row's gradients at a name": rows_apart,
    "a step in one batch, in two, in four micro-batches": micro_batches,
}

__all__ = ["KINDS", "WITHIN", "learned", "load"]
