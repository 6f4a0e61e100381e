"""The engines that train, with the interface of `engines`: they answer with wall-clock and processor seconds.

A step consists of forward, backward and AdamW on random ids, without dropout; the next step starts from its parameters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
RATE = 1e-5


def rows_of_ids(rows: int, tokens: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids and what each is to predict, (rows, tokens) twice, the same for every engine."""
    ids = np.random.default_rng(1).integers(0, vocabulary, (rows, tokens + 1))
    return ids[:, :-1], ids[:, 1:]


def taken(work: Callable[[], object]) -> list[float]:
    """The seconds that work took, and those of all processors together."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return [time.perf_counter() - start, time.process_time() - busy]


def peak() -> float:
    """MB that this process held at its peak, as the kernel counts them."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e3


class OurTraining:
    """gpt2_np; PRECISION is "", or what the forward pass keeps (`gradients.kept`)."""

    def __init__(self, folder: Path, precision: str) -> None:
        from gpt2_np import GPT2
        from gpt2_np.model.params import map_arrays
        from gpt2_np.system.reuse import reusing
        from gpt2_np.training import AdamW, State
        from gpt2_np.training.learner import own
        from gpt2_np.training.loop import KEPT_FOR_STEPS
        from gpt2_np.training.tree import leaves

        model = GPT2.from_pretrained(folder)
        self.memory = reusing(KEPT_FOR_STEPS * sum(one.nbytes for one in leaves(model.params)))  # as `train` does
        self.memory.__enter__()
        self.model = model.with_params(map_arrays(model.params, own))  # a file's stay as they are
        self.adamw, self.keep = AdamW(RATE), precision or "all"
        self.grads: Any = None
        self.state: State | None = None

    def step(self, rows: int, tokens: int, steps: int = 1) -> list[float]:
        from gpt2_np.training import loss_and_gradients

        batch = rows_of_ids(rows, tokens, self.model.config.vocab_size)

        def work() -> None:
            for _ in range(steps):
                _, grads = loss_and_gradients(self.model, [batch], keep=self.keep)
                self._update(grads)

        return taken(work)

    def update(self) -> list[float]:
        """AdamW alone, its buffers donated; the gradients are as large as a parameter may be."""
        from gpt2_np.model.params import map_arrays

        if self.grads is None:
            self.grads = map_arrays(self.model.params, lambda one: np.full_like(one, 1e-3))
        return taken(lambda: self._update(self.grads))

    def gradients(self, rows: int, tokens: int) -> list[float]:
        """Every named activation and its gradient."""
        from gpt2_np.gradients import cross_entropy

        ids, _ = rows_of_ids(rows, tokens, self.model.config.vocab_size)
        return taken(lambda: self.model.run_with_gradients(ids, cross_entropy()))

    def capture(self, rows: int, tokens: int) -> list[float]:
        """Every named activation."""
        ids, _ = rows_of_ids(rows, tokens, self.model.config.vocab_size)
        return taken(lambda: self.model.run_with_cache(ids))

    def peak(self) -> float:
        return peak()

    def _update(self, grads: Any) -> None:
        params, self.state = self.adamw.step(self.model.params, grads, self.state, True)
        self.model = self.model.with_params(params)


class TorchTraining:
    """transformers on torch, float32; PRECISION is the attention, "eager" or "sdpa"."""

    def __init__(self, folder: Path, precision: str) -> None:
        import torch
        from transformers import GPT2LMHeadModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(THREADS)
        self.torch = torch
        self.model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation=precision).eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), RATE)

    def step(self, rows: int, tokens: int, steps: int = 1) -> list[float]:
        ids, labels = self._batch(rows, tokens)

        def work() -> None:
            for _ in range(steps):
                logits = self.model(ids, use_cache=False).logits
                self.optimizer.zero_grad()
                self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
                self.optimizer.step()

        return taken(work)

    def update(self) -> list[float]:
        """AdamW alone."""
        for one in self.model.parameters():
            if one.grad is None:
                one.grad = self.torch.full_like(one, 1e-3)
        return taken(self.optimizer.step)

    def gradients(self, rows: int, tokens: int) -> list[float]:
        """Forward and backward without the parameters' gradients; nothing of it is captured."""
        self.model.requires_grad_(False)
        ids, _ = self._batch(rows, tokens)

        def work() -> None:
            embedded = self.model.transformer.wte(ids).requires_grad_()
            logits = self.model(inputs_embeds=embedded, use_cache=False).logits
            loss = self.torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()

        return taken(work)

    def peak(self) -> float:
        return peak()

    def _batch(self, rows: int, tokens: int) -> list[Any]:
        return [self.torch.tensor(one) for one in rows_of_ids(rows, tokens, self.model.config.vocab_size)]
