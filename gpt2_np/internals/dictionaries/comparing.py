"""How the logits of runs with a dictionary differ from those of a plain run: losses and divergences."""

from __future__ import annotations

import numpy as np

from ...engine.threaded import in_pieces
from .products import implementation

Array = np.ndarray


def compare(ids: Array, plain: Array, spliced: Array, ablated: Array) -> tuple[Array, Array]:
    """Return the losses of three runs, (3, B, T − 1), and the divergence of the last two from the first: (2, B, T)
    nats, float64.

    KL(plain ‖ other) = Σ p · (log p − log q). `ablated` may be one position's logits, (1, 1, V), for all.
    """
    B, T, V = plain.shape
    following = np.concatenate([ids[:, 1:], ids[:, :1]], axis=1).reshape(-1)
    losses, divergences = np.empty((3, B * T)), np.empty((2, B * T))
    rows = [one.reshape(-1, V) for one in (plain, spliced, ablated)]
    divergence = implementation(*rows).divergence

    def work(some: slice) -> None:
        for number, other in enumerate(rows[1:]):
            q = other if len(other) == 1 else other[some]
            losses[0, some], losses[number + 1, some], divergences[number, some] = divergence(
                rows[0][some], q, following[some]
            )

    in_pieces(work, B * T, plain.size)
    return losses.reshape(3, B, T)[:, :, :-1], divergences.reshape(2, B, T)
