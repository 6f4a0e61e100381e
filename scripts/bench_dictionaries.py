"""Measure what dictionaries cost: encoding beside the matrix product alone, evaluation beside plain scoring.

    python scripts/bench_dictionaries.py [--rounds 7] [--cpu-time]

The dictionary has 24,576 features of width 768 and random weights, with features that fire about as rarely as trained
ones; the input has 512 tokens. Each pair is timed in turns and the fastest round counts, so that a busy machine
disturbs both alike. ``--cpu-time`` measures the process's own time, which is meaningful even if processes have to wait
(use one thread, ``OMP_NUM_THREADS=1``, since the times of threads are added up).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from gpt2_np import GPT2
from gpt2_np.internals import dictionaries
from gpt2_np.internals.dictionaries import Config, Dictionary
from gpt2_np.system.memory import empty

D, F, T = 768, 24_576, 512


def random_dictionary(architecture: str, width: int = D, features: int = F, hook: str | None = None) -> Dictionary:
    """Unit directions, the encoder their transpose, thresholds that about 50 features pass."""
    k = 32 if architecture == "topk" else None
    config = Config(architecture, width, features, width, hook_name=hook, hook_name_out=hook, k=k)
    random = np.random.default_rng(0)
    W_dec = random.normal(size=(features, width)).astype(np.float32)
    W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in config.shapes.items()}
    tensors |= {"W_dec": W_dec, "W_enc": np.ascontiguousarray(W_dec.T)}
    for name in ("b_enc", "b_gate", "b_mag"):
        if name in tensors:
            tensors[name] -= np.float32(0 if architecture == "topk" else 2.9)  # vectors are standard normal
    return Dictionary(config, tensors)


def least(rounds: int, clock: Callable[[], float], *runs: Callable[[], object]) -> list[float]:
    """The least seconds of each by a clock, taken in turns."""
    found = [float("inf")] * len(runs)
    for _ in range(rounds):
        for number, run in enumerate(runs):
            start = clock()
            run()
            found[number] = min(found[number], clock() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true", help="the process's own time")
    options = parser.parse_args()
    rounds, clock = options.rounds, time.process_time if options.cpu_time else time.perf_counter
    x = np.random.default_rng(1).normal(size=(T, D)).astype(np.float32)
    for architecture in ("standard", "topk", "jumprelu", "gated"):
        one = random_dictionary(architecture)
        weight = one.tensors["W_enc"]
        features = one.encode(x)
        product, encode, decode = least(
            rounds,
            clock,
            lambda weight=weight: np.matmul(x, weight, out=empty((T, F), np.float32)),  # type: ignore[misc]
            lambda one=one: one.encode(x),  # type: ignore[misc]
            lambda one=one, features=features: one.decode(features),  # type: ignore[misc]
        )
        print(
            f"{architecture:>10}: product {1000 * product:6.1f} ms, encode {1000 * encode:6.1f} ms "
            f"({encode / product:.2f} ×), decode {1000 * decode:6.1f} ms, L0 {np.count_nonzero(features) / T:.0f}",
            flush=True,
        )
    model = GPT2.from_pretrained()
    texts = [np.random.default_rng(n).integers(1, model.config.vocab_size, 256).tolist() for n in range(8)]
    for hook in ("blocks.4.hook_resid_pre", "blocks.4.hook_attn_out", "blocks.4.hook_mlp_out"):
        one = random_dictionary("topk", model.config.n_embd, 2048, hook)
        score, judge = least(
            rounds,
            clock,
            lambda: model.score_all([(None, text) for text in texts]),
            lambda one=one: dictionaries.evaluate(model, one, texts),  # type: ignore[misc]
        )
        tokens = sum(map(len, texts))
        print(
            f"{hook}: scoring {tokens / score:,.0f} tokens/s, evaluating {tokens / judge:,.0f} ({score / judge:.2f} ×)"
        )


if __name__ == "__main__":
    main()
