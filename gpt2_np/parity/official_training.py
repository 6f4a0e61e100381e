"""Published training losses of the official weights, each with its source.

llm.c's ``gpt2_124M_debug_state.bin`` holds a batch of 4 × 64 ids and labels, and its test prints the losses of ten
steps of AdamW on it. They were not reproduced when this was written, the weights being out of reach; `check` computes
them where the weights and that file are. `LLM_C_RANDOM` are losses that its C code printed, run on two cores, for
random weights of the same shape, which anyone can make again (`random_weights`).

nanoGPT's fine-tuning on tiny Shakespeare prints the losses that it begins with, of both parts of the text. It publishes
no figures itself; those here are of a log that a user showed, rounded to float16 on a GPU and of 40 random windows, so
`check_start` allows for what 40 windows differ by. They were not reproduced either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..model.config import Config
from ..model.params import Params, assemble, shapes
from ..text import scoring
from ..text.gpt2 import GPT2
from ..training import AdamW, loss_and_gradients
from .checks import Check

Array = np.ndarray
MAGIC, HEADER = 20240327, 256  # of a debug state: its first number, and how many int32 precede the ids


@dataclass(frozen=True)
class KnownLosses:
    """The loss before each of some steps on one batch (nats), the optimizer, and the source.

    Without an optimizer no step is taken, and the losses are those of a text's two parts.
    """

    model: str
    losses: tuple[float, ...]
    optimizer: AdamW | None
    source: str
    tolerance: float = 1e-4


LLM_C = KnownLosses(
    "gpt2",
    (5.270007, 4.059707, 3.375123, 2.800783, 2.315382, 1.849029, 1.394656, 0.999147, 0.624080, 0.376511),
    AdamW(1e-4, weight_decay=0.01, decayed="all"),
    "llm.c, test_gpt2.c",
)
LLM_C_RANDOM = KnownLosses(
    "random weights",
    (10.9622192, 9.78897817, 9.00016912, 8.39586343, 7.76400792, 7.13257407),
    AdamW(1e-4, weight_decay=0.01, decayed="all"),
    "llm.c, train_gpt2.c at f1e2ace, the mean of the 256 losses of each step",
    2e-6,
)
NANOGPT = KnownLosses(
    "gpt2", (4.1872, 4.0326), None, "karpathy/nanoGPT, config/finetune_shakespeare.py, the log in its issue 210", 0.15
)
WINDOWS = 40  # of each part, as nanoGPT's eval_iters for this


def random_weights(config: Config, seed: int = 124) -> tuple[Params, tuple[Array, Array]]:
    """The float32 weights and the batch (4 × 64 ids, and the labels) of `LLM_C_RANDOM`, for the 124M shape.

    All tensors are normal with a deviation of 0.02, drawn in the order of their names; norms' weights are that plus 1.
    """
    random, tensors = np.random.default_rng(seed), {}
    for name, shape in shapes(config).items():
        tensors[name] = random.standard_normal(shape, np.float32) * np.float32(0.02)
        if name.split(".")[-2].startswith("ln_") and name.endswith("weight"):
            tensors[name] += np.float32(1)
    ids = random.integers(0, config.vocab_size, (4, 65))
    return assemble(tensors, config), (ids[:, :-1], ids[:, 1:])


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


def starting_losses(model: GPT2, text: str) -> list[float]:
    """The mean losses (nats) of a text's first nine tenths of characters and of the rest, before any step.

    They are of windows of the whole context, spread evenly over each part, as ids of that part alone: nanoGPT's
    data/shakespeare/prepare.py and `estimate_loss`, which draws its windows. ``ValueError`` for a part of less than a
    context.
    """
    found, T, cut = [], model.config.n_positions, int(len(text) * 0.9)
    for part in (text[:cut], text[cut:]):
        ids = np.array(model.tokenizer.encode(part, add_special_tokens=False))
        if len(ids) <= T:
            raise ValueError(f"both parts of the text must have more than {T} tokens, got {len(ids)}")
        starts = np.linspace(0, len(ids) - T - 1, WINDOWS).astype(int)
        rows = [ids[start : start + T + 1] for start in starts]
        found.append(float(np.mean([scoring.losses(model(row[:-1]), row[1:]).mean() for row in rows])))
    return found


def losses(model: GPT2, batch: tuple[Array, Array], optimizer: AdamW, steps: int) -> list[float]:
    """The loss before each step, for a number of steps on one batch."""
    params, state, found = model.params, None, []
    for _ in range(steps):
        loss, grads = loss_and_gradients(model.with_params(params), [batch])
        params, state = optimizer.step(params, grads, state, donate=state is not None)
        found.append(loss)
    return found


def check(model: GPT2, debug_state: Path, known: KnownLosses = LLM_C) -> Check:
    """The known losses, each within their tolerance. ``ValueError`` if they belong to no optimizer."""
    if known.optimizer is None:
        raise ValueError(f"losses of steps need an optimizer, got those of {known.source}, before any step")
    return compare(known, losses(model, debug_batch(debug_state), known.optimizer, len(known.losses)))


def check_start(model: GPT2, text: str, known: KnownLosses = NANOGPT) -> Check:
    """The known losses of a text's two parts, each within their tolerance."""
    return compare(known, starting_losses(model, text))


def compare(known: KnownLosses, found: Sequence[float]) -> Check:
    """Known losses and found ones."""
    gaps = np.abs(np.subtract(found, known.losses))
    place = int(gaps.argmax())
    good = bool((gaps <= known.tolerance).all())
    written = ", ".join(f"{loss:.6f}" for loss in found)
    return Check(
        "known losses",
        "same" if good else "mismatch",
        float(gaps[place]),
        f"[{place}]",
        note=f"{known.source}: {written}",
    )
