"""The friendly face: four ``*_decode(prompt, …) -> str`` functions and a look at the logits, as a notebook has them.

    from gpt2_np import GPT2, notebook
    model = GPT2.from_pretrained()
    print(notebook.greedy_decode("Once upon a time", model=model))

Each gives the prompt and its continuation as one text. `model` is the bundled one unless given.
"""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np

from decoders import textbook
from decoders.base.task import Stream
from decoders.random.torch_rng import CPU

from .text.gpt2 import GPT2

Array = np.ndarray


@lru_cache(maxsize=1)
def default_model() -> GPT2:
    """The bundled model, loaded once."""
    return GPT2.from_pretrained()


def get_next_token_logits(prompt: str, *, model: GPT2 | None = None) -> Array:
    """The logits of what comes after a text: (V,) float32."""
    model = model or default_model()
    return model.start().feed([model.prompt_ids(prompt)])[0]


def greedy_decode(prompt: str, max_length: int = 50, *, model: GPT2 | None = None) -> str:
    """The prompt and up to `max_length` new tokens, each the likeliest."""
    return _decode(prompt, max_length, textbook.greedy, model)


def temperature_decode(
    prompt: str, max_length: int = 50, temperature: float = 1.0, *, seed: int | None = None, model: GPT2 | None = None
) -> str:
    """Each token drawn from softmax(logits / temperature); `seed` is ``torch.manual_seed``'s."""
    return _decode(prompt, max_length, textbook.temperature(temperature, _stream(seed)), model)


def top_k_decode(
    prompt: str, max_length: int = 50, k: int = 50, *, seed: int | None = None, model: GPT2 | None = None
) -> str:
    """Each token drawn from the `k` likeliest."""
    return _decode(prompt, max_length, textbook.top_k(k, _stream(seed)), model)


def top_p_decode(
    prompt: str,
    max_length: int = 50,
    p: float = 0.9,
    temperature: float = 1.0,
    *,
    seed: int | None = None,
    model: GPT2 | None = None,
) -> str:
    """Each token drawn from the nucleus: the likeliest tokens that together pass `p`."""
    return _decode(prompt, max_length, textbook.top_p(p, temperature, _stream(seed)), model)


def beam_search_decode(prompt: str, max_length: int = 50, num_beams: int = 3, *, model: GPT2 | None = None) -> str:
    """The likeliest text, per token, of those that `num_beams` beams find."""
    model = model or default_model()
    ids = model.prompt_ids(prompt)
    length = _room(model, ids, max_length)
    new, _ = textbook.beam_search(model.start(), ids, length, num_beams, _end(model))
    return _text(prompt, new, model)


def _decode(prompt: str, max_length: int, choose: textbook.Choice, model: GPT2 | None) -> str:
    model = model or default_model()
    ids = model.prompt_ids(prompt)
    return _text(prompt, textbook.decode(model.start(), ids, _room(model, ids, max_length), choose, _end(model)), model)


def _stream(seed: int | None) -> Stream:
    return CPU(int.from_bytes(os.urandom(4), "little") if seed is None else seed)


def _end(model: GPT2) -> int | None:
    return next(iter(model.eos_token_ids), None)


def _room(model: GPT2, ids: list[int], max_length: int) -> int:
    return min(max_length, model.config.n_positions - len(ids) + 1)


def _text(prompt: str, new: list[int], model: GPT2) -> str:
    return prompt + model.tokenizer.decode(new[:-1] if new[-1] == _end(model) else new)
