"""The engines that are compared, each with the same interface and in a process of its own.

    python scripts/benchmarks/engines.py ENGINE PRECISION FOLDER

reads one request per line from stdin, as JSON, and answers with the seconds it took, or with several measurements. Each
engine has a process of its own because two thread pools in one process would compete for the cores; while another
engine has its turn, this one sleeps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from formats import THREADS, gguf, token_name, with_tokenizer
from trainers import OurTraining, TorchTraining  # a script imports from its own folder


def prompt(tokens: int, rows: int = 1, vocabulary: int = 50257) -> np.ndarray:
    """Random ids, the same for every engine."""
    return np.random.default_rng(1).integers(0, vocabulary - 1, (rows, tokens))


class Ours:
    """gpt2_np; PRECISION is a dtype."""

    def __init__(self, folder: Path, precision: str) -> None:
        from gpt2_np import GPT2

        self.model = GPT2.from_pretrained(folder, dtype=precision)

    def prefill(self, tokens: int) -> float:
        start = time.perf_counter()
        self.model.start().feed(self._prompt(tokens))
        return time.perf_counter() - start

    def decode(self, position: int, tokens: int, rows: int = 1) -> float:
        session = self.model.start(capacity=min(self.model.config.n_positions, position + tokens + 1))
        logits = session.feed(self._prompt(position, rows))
        start = time.perf_counter()
        for _ in range(tokens):
            logits = session.feed(logits.argmax(-1)[:, None])
        return time.perf_counter() - start

    def many(self, rows: int, position: int, tokens: int) -> float:
        start = time.perf_counter()
        self.model.generate(self._prompt(position, rows).tolist(), max_new_tokens=tokens, eos_token_id=())
        return time.perf_counter() - start

    def beams(self, beams: int, position: int, tokens: int) -> float:
        start = time.perf_counter()
        self.model.generate(self._prompt(position)[0].tolist(), num_beams=beams, max_new_tokens=tokens, eos_token_id=())
        return time.perf_counter() - start

    def score(self, tokens: int) -> float:
        from gpt2_np.text.scoring import nll

        start = time.perf_counter()
        nll(self.model, self._prompt(tokens)[0], 1, stride=self.model.config.n_positions)
        return time.perf_counter() - start

    def _prompt(self, tokens: int, rows: int = 1) -> np.ndarray:
        return prompt(tokens, rows, self.model.config.vocab_size)


class Torch:
    """transformers on torch, eager attention, float32."""

    def __init__(self, folder: Path, precision: str) -> None:
        import torch
        from transformers import GPT2LMHeadModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(THREADS)
        self.torch = torch
        self.model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()

    def prefill(self, tokens: int) -> float:
        start = time.perf_counter()
        with self.torch.inference_mode():
            self.model(self.torch.tensor(self._prompt(tokens)), logits_to_keep=1, use_cache=True)
        return time.perf_counter() - start

    def decode(self, position: int, tokens: int, rows: int = 1) -> float:
        return self._generate(rows, position, 1 + tokens) - self._generate(rows, position, 1)

    def many(self, rows: int, position: int, tokens: int) -> float:
        return self._generate(rows, position, tokens)

    def beams(self, beams: int, position: int, tokens: int) -> float:
        return self._generate(1, position, tokens, num_beams=beams)

    def score(self, tokens: int) -> float:
        ids, context = self.torch.tensor(self._prompt(tokens)), self.model.config.n_positions
        start = time.perf_counter()
        with self.torch.inference_mode():
            for first in range(0, tokens, context):
                some = ids[:, first : first + context]
                self.model(some, labels=some, use_cache=False)
        return time.perf_counter() - start

    def _generate(self, rows: int, position: int, tokens: int, **options: Any) -> float:
        ids = self.torch.tensor(self._prompt(position, rows))
        start = time.perf_counter()
        with self.torch.inference_mode():
            self.model.generate(
                ids, do_sample=False, eos_token_id=None, pad_token_id=0, max_new_tokens=tokens, **options
            )
        return time.perf_counter() - start

    def _prompt(self, tokens: int, rows: int = 1) -> np.ndarray:
        return prompt(tokens, rows, self.model.config.vocab_size)


class Bound:
    """No engine: what no engine can be faster than, multiplying the matrices and nothing else."""

    def __init__(self, folder: Path, precision: str) -> None:
        from gpt2_np.weights.load import open_safetensors

        tensors = {name: tensor for name, (_, tensor) in open_safetensors(folder / "model.safetensors").items()}
        self.matrices = [tensor for name, tensor in tensors.items() if name.startswith("h.") and tensor.ndim == 2]

    def prefill(self, tokens: int) -> float:
        inputs = {matrix.shape[0]: np.ones((tokens, matrix.shape[0]), np.float32) for matrix in self.matrices}
        start = time.perf_counter()
        for matrix in self.matrices:
            inputs[matrix.shape[0]] @ matrix
        return time.perf_counter() - start


class SideBySide:
    """gpt2_np at several precisions, PRECISION names them, and what none can be faster than: reading memory.

    All in one process and on one pool of threads, each for one token in turn. Where other machines share the memory,
    its speed changes within seconds: what is a share of it must be measured at the same time.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        from gpt2_np import GPT2

        self.models = {dtype: GPT2.from_pretrained(folder, dtype=dtype) for dtype in precision.split()}
        self.memory, self.sums = np.ones((1 << 13, 1 << 14), np.float32), np.empty(THREADS, np.float32)

    def decode(self, positions: list[int], tokens: int) -> dict[str, list[float]]:
        """The seconds of each token, by precision and position; and of each time that a gigabyte was read."""
        taken: dict[str, list[float]] = {"a gigabyte": []}
        turns = {"a gigabyte": self._reading()}
        for dtype, model in self.models.items():
            for position in positions:
                name = f"{dtype} at {position}"
                turns[name], taken[name] = self._decoding(model, position, tokens + 1), []
        order = np.random.default_rng(0)
        for token in range(tokens + 1):
            for name in order.permutation(list(turns)):
                seconds = next(turns[name])
                if token:
                    taken[name].append(seconds)
        return taken

    def _reading(self) -> Iterator[float]:
        from machine import read_all

        while True:
            start = time.perf_counter()
            read_all(self.memory, self.sums)
            yield (time.perf_counter() - start) / self.memory.nbytes * 1e9

    def _decoding(self, model: Any, position: int, tokens: int) -> Iterator[float]:
        session = model.start(capacity=min(model.config.n_positions, position + tokens + 1))
        logits = session.feed(prompt(position, 1, model.config.vocab_size))
        while True:
            start = time.perf_counter()
            logits = session.feed(logits.argmax(-1)[:, None])
            yield time.perf_counter() - start


class LlamaCpp:
    """llama.cpp by its Python binding; PRECISION is f32, f16, q8_0 or q4_0."""

    def __init__(self, folder: Path, precision: str) -> None:
        import llama_cpp

        path = gguf(folder, precision)
        self.model = llama_cpp.Llama(
            str(path), n_ctx=1024, n_batch=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False
        )

    def prefill(self, tokens: int) -> float:
        self.model.reset()
        start = time.perf_counter()
        self.model.eval(prompt(tokens)[0].tolist())
        return time.perf_counter() - start

    def decode(self, position: int, tokens: int) -> float:
        self.prefill(position)
        start = time.perf_counter()
        for _ in range(tokens):
            self.model.eval([int(np.argmax(self.model.scores[self.model.n_tokens - 1]))])
        return time.perf_counter() - start


class CTranslate2:
    """CTranslate2; PRECISION is float32 or int8."""

    def __init__(self, folder: Path, precision: str) -> None:
        import ctranslate2

        path = folder / f"ctranslate2-{precision}"
        if not (path / "model.bin").is_file():
            converter = ctranslate2.converters.TransformersConverter(str(with_tokenizer(folder)))
            converter.convert(str(path), quantization=precision, force=True)
        self.model = ctranslate2.Generator(str(path), device="cpu", compute_type=precision, intra_threads=THREADS)

    def prefill(self, tokens: int) -> float:
        return self._generate(1, tokens, 1)

    def decode(self, position: int, tokens: int) -> float:
        return self._generate(1, position, 1 + tokens) - self._generate(1, position, 1)

    def many(self, rows: int, position: int, tokens: int) -> float:
        return self._generate(rows, position, tokens)

    def beams(self, beams: int, position: int, tokens: int) -> float:
        return self._generate(1, position, tokens, beam_size=beams)

    def _generate(self, rows: int, position: int, tokens: int, **options: Any) -> float:
        texts = [[token_name(one) for one in row] for row in prompt(position, rows)]
        start = time.perf_counter()
        self.model.generate_batch(
            texts, max_length=tokens, min_length=tokens, include_prompt_in_result=False, max_batch_size=0, **options
        )
        return time.perf_counter() - start


ENGINES = {
    "bound": Bound,
    "side by side": SideBySide,
    "gpt2_np": Ours,
    "torch": Torch,
    "llama.cpp": LlamaCpp,
    "ctranslate2": CTranslate2,
    "gpt2_np training": OurTraining,
    "torch training": TorchTraining,
}


def main(engine: str, precision: str, folder: str) -> None:
    """Load, say so, then answer questions until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    model = ENGINES[engine](Path(folder), precision)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        answer = getattr(model, question.pop("work"))(**question)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
