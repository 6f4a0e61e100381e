"""What assistance saves: greedy decoding with and without, in alternating runs, the tokens compared.

    python scripts/bench_assisted.py --folder out/bench/gpt2

`rows` is what `bench.py` can import. Random weights of the 124M shape repeat themselves only now and then; their draft
is the same model in int4. The bundled model continues a text that repeats itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_np import GPT2

Row = dict[str, object]


def compared(what: str, model: GPT2, prompt: Any, new: int, runs: int, **how: Any) -> Row:
    """One row: tokens/s without and with assistance (medians), their ratio, and what came of the candidates."""
    settings = {"max_new_tokens": new, "eos_token_id": None}
    taken: dict[bool, list[float]] = {False: [], True: []}
    for run in range(runs + 1):
        found = {}
        for helped in (False, True):
            start = time.perf_counter()
            found[helped] = model.generate(prompt, **settings, **(how if helped else {}))
            if run:
                taken[helped].append(time.perf_counter() - start)
        if found[False].ids != found[True].ids or found[False].logprobs != found[True].logprobs:
            raise ValueError(f"{what}: assistance changed the text")
    plain, fast = (statistics.median(taken[helped]) for helped in (False, True))
    told = found[True].assistance
    return {"what": what, "plain": new / plain, "value": new / fast, "unit": "tokens/s", "ratio": plain / fast,
            "passes": told.passes, "proposed": told.proposed, "accepted": told.accepted, "tokens": new}  # fmt: skip


def rows(folder: Path, runs: int = 5, new: int = 100) -> list[Row]:
    """Prompt look-up and a draft model, on a checkpoint of the 124M shape and on the bundled model."""
    large, draft = GPT2.from_pretrained(folder), GPT2.from_pretrained(folder, dtype="int4")
    ids = np.random.default_rng(1).integers(0, large.config.vocab_size, 16).tolist() * 4
    tales, text = GPT2.from_pretrained(), "The king was old. The king was old. The king was old. The king"
    lookup, by_draft = {"prompt_lookup_num_tokens": 10}, {"assistant_model": draft, "num_assistant_tokens": 8}
    return [
        compared("124M shape, prompt look-up", large, ids, new, runs, **lookup),
        compared("124M shape, its int4 weights as the draft", large, ids, new, runs, **by_draft,
                 assistant_confidence_threshold=0.0),
        compared("bundled model, prompt look-up", tales, text, new, runs, **lookup),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a checkpoint of the 124M shape")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    for row in rows(options.folder, options.runs):
        print(f"{row['what']:<45} {row['plain']:7.1f} → {row['value']:7.1f} tokens/s, {row['ratio']:.2f} ×; "
              f"{row['passes']} passes, {row['accepted']} of {row['proposed']} accepted")  # fmt: skip


if __name__ == "__main__":
    main()
