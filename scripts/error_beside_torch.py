"""Measure the rounding error of float32 logits as a share of torch's own error, both against this project's float64.

    python scripts/error_beside_torch.py                   random weights of the 124M shape, 96 random ids
    python scripts/error_beside_torch.py --model gpt2 --tokens 512

The error is the root mean square over all logits of one row. transformers runs with eager and with scaled dot product
attention.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_np import GPT2

WAYS = ("sdpa", "eager")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or name; without it, random weights of the 124M shape")
    parser.add_argument("--tokens", type=int, default=96, help="ids in the row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            torch.manual_seed(0)
            GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
            model = folder
        for name, error in errors(str(model), options.tokens).items():
            print(f"{name:24} {error:.3f} × torch's error")


def errors(model: str, tokens: int) -> dict[str, float]:
    """By implementation: its error as a share of that of torch's default attention."""
    exact = GPT2.from_pretrained(model, dtype="float64", backend="numpy")
    ids = np.random.default_rng(0).integers(0, exact.config.vocab_size, tokens)
    truth = exact(ids)
    found = {}
    for way in WAYS:
        theirs = GPT2LMHeadModel.from_pretrained(str(exact.folder), attn_implementation=way).eval()
        with torch.no_grad():
            found[f"torch {way}"] = rms(theirs(torch.tensor(ids)[None]).logits[0].numpy() - truth)
    for backend in ("numba", "numpy"):
        found[f"ours, {backend}"] = rms(GPT2.from_pretrained(model, backend=backend)(ids) - truth)
    return {name: error / found["torch sdpa"] for name, error in found.items()}


def rms(error: np.ndarray) -> float:
    """The root mean square of an array's entries."""
    return float(np.sqrt(np.square(error, dtype=np.float64).mean()))


if __name__ == "__main__":
    main()
