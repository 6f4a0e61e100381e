"""What the published weights are known to lose when they are trained: figures that others have printed.

llm.c's ``gpt2_124M_debug_state.bin`` holds a batch of 4 × 64 ids and labels, and its test prints the losses of ten
steps of AdamW on it. They were not reproduced when this was written, the weights being out of reach; `check` computes
them where the weights and that file are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..text.gpt2 import GPT2
from ..training import AdamW, loss_and_gradients
from .checks import Check

Array = np.ndarray
MAGIC, HEADER = 20240327, 256  # of a debug state: its first number, and how many int32 precede the ids


@dataclass(frozen=True)
class KnownLosses:
    """The loss before each of some steps on one batch (nats), the optimizer, and the source."""

    model: str
    losses: tuple[float, ...]
    optimizer: AdamW
    source: str


LLM_C = KnownLosses(
    "gpt2",
    (5.270007, 4.059707, 3.375123, 2.800783, 2.315382, 1.849029, 1.394656, 0.999147, 0.624080, 0.376511),
    AdamW(1e-4, weight_decay=0.01, decayed="all"),
    "llm.c, test_gpt2.c",
)
TOLERANCE = 1e-4


def debug_batch(path: Path) -> tuple[Array, Array]:
    """Ids and labels, (B, T) each, of a debug state. ``ValueError`` for a file that is none."""
    with path.open("rb") as file:
        header = np.frombuffer(file.read(4 * HEADER), "<i4")
        if len(header) < HEADER or header[0] != MAGIC or not (0 < header[2] < 1 << 16 and 0 < header[3] < 1 << 16):
            raise ValueError(f"{path} must be a debug state of llm.c, which begins with {MAGIC}")
        B, T = int(header[2]), int(header[3])
        numbers = np.frombuffer(file.read(8 * B * T), "<i4").astype(np.int64)
    if len(numbers) < 2 * B * T:
        raise ValueError(f"{path} must hold {2 * B * T} ids and labels, got {len(numbers)}")
    ids, labels = numbers.reshape(2, B, T)
    return ids, labels


def losses(model: GPT2, batch: tuple[Array, Array], optimizer: AdamW, steps: int) -> list[float]:
    """The loss before each of so many steps on one batch."""
    params, state, found = model.params, None, []
    for _ in range(steps):
        loss, grads = loss_and_gradients(model.with_params(params), [batch])
        params, state = optimizer.step(params, grads, state, donate=state is not None)
        found.append(loss)
    return found


def check(model: GPT2, debug_state: Path, known: KnownLosses = LLM_C) -> Check:
    """The known losses, each within 1e-4."""
    found = losses(model, debug_batch(debug_state), known.optimizer, len(known.losses))
    return compare(known, found)


def compare(known: KnownLosses, found: Sequence[float]) -> Check:
    """Known losses and found ones."""
    gaps = np.abs(np.subtract(found, known.losses))
    place = int(gaps.argmax())
    good = bool((gaps <= TOLERANCE).all())
    written = ", ".join(f"{loss:.6f}" for loss in found)
    return Check(
        "known losses",
        "same" if good else "mismatch",
        float(gaps[place]),
        f"[{place}]",
        note=f"{known.source}: {written}",
    )
