"""The independent oracle: transformers' own GPT-2, in random small shapes, saved as checkpoints to load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)  # the models are tiny: a second thread only waits

SMALL = {
    "vocab_size": 97,
    "n_positions": 64,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def reference_model(seed: int = 0, **fields: Any) -> GPT2LMHeadModel:
    """A randomly initialised GPT2LMHeadModel; biases and norms random too, so that none can be forgotten unseen."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**(SMALL | fields)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif ".ln_" in name:
                parameter.normal_(1, 0.1)
            elif "wte" in name or "wpe" in name or "lm_head" in name:
                parameter.normal_(0, 0.3)
            elif ".act." not in name:
                parameter.normal_(0, 0.15)
    return model.eval()


def save(model: GPT2LMHeadModel, folder: Path) -> Path:
    """`model` as transformers itself saves it."""
    model.save_pretrained(folder)
    return folder


def reference_logits(model: GPT2LMHeadModel, ids: Any, **inputs: Any) -> np.ndarray:
    """The logits after every position, as transformers computes them."""
    extra = {name: torch.tensor(value) for name, value in inputs.items()}
    with torch.inference_mode():
        return model(torch.tensor(np.asarray(ids)), **extra).logits.numpy()


def random_ids(rows: int, positions: int, vocabulary: int = 97, seed: int = 0) -> np.ndarray:
    """(rows, positions) ids, the same for the same seed."""
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, positions))


class TorchStepper:
    """transformers' model as a stepper: everything is computed anew at every step, so no cache can be wrong."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.model = model
        self.texts: list[list[int]] = []

    def feed(self, ids: Any) -> np.ndarray:
        new = [list(map(int, row)) for row in ids]
        self.texts = [old + row for old, row in zip(self.texts or [[] for _ in new], new, strict=True)]
        return np.concatenate([reference_logits(self.model, [text])[:, -1] for text in self.texts])

    def reorder(self, rows: Any) -> None:
        self.texts = [list(self.texts[row]) for row in rows]


def reference_generate(model: GPT2LMHeadModel, prompts: Any, seed: int = 0, **options: Any) -> Any:
    """transformers' own `generate` on prompts (padded on the left where lengths differ); its whole output object."""
    longest = max(len(prompt) for prompt in prompts)
    padded = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    torch.manual_seed(seed)
    defaults = {
        "top_k": 0,
        "max_new_tokens": 50,
        "pad_token_id": 0,
        "return_dict_in_generate": True,
        "output_scores": True,
        "eos_token_id": None,
    }
    model.generation_config.eos_token_id = None
    return model.generate(padded, attention_mask=mask, **(defaults | options))


def seeded(seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Options for decoders that draw as `reference_generate` draws: the seed is given only where anything is drawn."""
    return options | ({"seed": seed} if options.get("do_sample") else {})


def new_ids(output: Any, prompts: Any, eos: int | None = None) -> list[list[int]]:
    """The ids that transformers added to each row, what follows an end-of-text cut off."""
    longest, rows = max(len(prompt) for prompt in prompts), []
    for row in output.sequences[:, longest:].tolist():
        rows.append(row[: row.index(eos) + 1] if eos is not None and eos in row else row)
    return rows
