"""The gradient of one step: the loss over all its tokens, gradient accumulation over micro-batches, and clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.threaded import each, in_pieces
from ..gradients.metrics import IGNORED, CrossEntropy
from ..gradients.run import run_with_gradients
from ..session.model import Model
from .tree import leaves

Array = np.ndarray


class NextIds(CrossEntropy):
    """The cross-entropy of one micro-batch of a step: a row's sum of −log p, in nats, divided by the step's tokens.

    ``labels``, (B, T), are what each position is to predict, −100 where nothing is counted; ``tokens`` is how many are
    counted in all micro-batches of the step. The sum over the rows of all of them is the mean over the tokens.
    """

    def targets(self, ids: Array | None, shape: tuple[int, int], V: int) -> Array:
        """Return the labels as they are: each stands at the position that predicts it."""
        return np.asarray(self.labels)


def loss_and_gradients(model: Model, batches: Sequence[tuple[Array, Array]], *, keep: str = "all") -> tuple[float, Any]:
    """Return the mean cross-entropy (nats) of a step, and its gradients as `Params`.

    Each micro-batch is ids, (B, T), and labels, (B, T): what each position is to predict, −100 being ignored. Each
    adds its gradients of the sum over its tokens, divided by the tokens of *all* micro-batches: so the result is that
    of one large batch, whatever the lengths. `keep` is as in `Model.run_with_gradients`. ``ValueError`` for a row
    without any label.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> import numpy as np
        >>> from gpt2_np.training import loss_and_gradients
        >>> rows = np.array([[5, 6, 7, 8]])
        >>> loss, grads = loss_and_gradients(model, [(rows[:, :-1], rows[:, 1:])])
        >>> loss > 0, grads.wte.shape
        (True, (4096, 320))
    """
    tokens = sum(int((np.asarray(labels) != IGNORED).sum()) for _, labels in batches)
    loss, total = 0.0, None
    for ids, labels in batches:
        # Unchecked: the run itself decides what a loss that isn't finite means.
        metric = NextIds(labels, tokens, in_place=True)  # the logits, a tenth of a step's memory, are read no more
        run = run_with_gradients(model, ids, metric, (), parameters=True, keep=keep)
        loss += float(run.value.sum())
        if total is None:
            total = run.params
        else:
            for sum_so_far, more in zip(leaves(total), leaves(run.params), strict=True):
                add(sum_so_far, more)
    return loss, total


def add(total: Array, more: Array) -> None:
    """Compute total += more, on every core."""
    flat, others = total.reshape(-1), more.reshape(-1)
    in_pieces(lambda some: np.add(flat[some], others[some], out=flat[some]), flat.size, flat.size)


def norm(grads: object) -> float:
    """Return the L2 norm of all gradients together, with squares summed in float64: NaN or infinite if any entry is."""
    size = 1 << 16
    flat = [one.reshape(-1) for one in leaves(grads)]
    pieces = [one[start : start + size] for one in flat for start in range(0, one.size, size)]
    squares = np.empty(len(pieces))

    def work(number: int) -> None:
        squares[number] = np.square(pieces[number], dtype=np.float64).sum()

    with np.errstate(over="ignore", invalid="ignore"):
        each(work, range(len(pieces)), sum(one.size for one in flat))
        return math.sqrt(squares.sum())


def clipping(length: float, max_norm: float | None) -> float:
    """Return the factor that limits gradients of this norm to `max_norm`; 1 if that is None.

    ``torch.nn.utils.clip_grad_norm_``'s factor: max_norm / (norm + 1e-6), at most 1.

    Examples:
        >>> from gpt2_np.training import clipping
        >>> round(clipping(4.0, 1.0), 3), clipping(0.5, 1.0)
        (0.25, 1.0)
    """
    return 1.0 if max_norm is None else min(1.0, max_norm / (length + 1e-6))
