"""What the page in the browser asks of the package: it writes token by token, and shows where heads look.

It runs in Pyodide, in the page's worker, and in any other Python as well, where the tests run it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import decoders
from decoders import Token
from gpt2_np import GPT2
from gpt2_np.internals.page import inspect_page, words
from gpt2_np.model.params import Params, map_arrays
from gpt2_np.text.requests import capacity

MOST = 512  # tokens of a text that is looked into


class Studio:
    """A model and the text that it is writing. Every answer but a picture's bytes is JSON; an error is one too."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that Numba isn't installed: in a browser it never is
            model = GPT2.from_pretrained(backend="numpy")
        self.model = model.with_params(by_columns(model.params))
        self.ids: list[int] = []
        self.writing: Iterator[Token] = iter(())

    def about(self) -> str:
        """Return the model's name and size."""
        config = self.model.config
        return json.dumps({"name": "tales", "layers": config.n_layer, "heads": config.n_head, "width": config.n_embd})

    def begin(self, prompt: str, options: str) -> str:
        """Take a prompt, and options by `GPT2.generate`'s names; return the prompt's tokens, or why they can't be."""
        try:
            names: dict[str, Any] = json.loads(options)
            ids = self.model.prompt_ids(prompt)
            _, chosen = self.model.options(names, len(ids))
            context = self.model.config.n_positions
            stepper = self.model.start(capacity=capacity([ids], chosen, context))
            self.writing = decoders.stream(stepper, [ids], chosen, context=context)
            self.ids = list(ids)
        except ValueError as error:
            return json.dumps({"error": str(error)})
        return json.dumps({"tokens": words(self.model, ids)})

    def step(self) -> str:
        """Write one more token: its text, the model's own probability of it, and why the text ends; null behind it."""
        token = next(self.writing, None)
        if token is None:
            return "null"
        self.ids.append(token.id)
        (text,) = words(self.model, [token.id])
        return json.dumps({"text": text, "p": float(np.exp(token.logprob)), "end": token.finish_reason})

    def attention(self) -> bytes:
        """Return where every head looks, in bytes of which 255 is 1: layer, head, query, keys up to the query."""
        _, cache = self.model.run_with_cache(self.ids[:MOST], "*.attn.pattern")
        queries, keys = np.tril_indices(len(self.ids[:MOST]))
        patterns = cache.stack_activation("pattern")[:, 0, :, queries, keys].transpose(1, 2, 0)
        return np.rint(patterns * 255).astype(np.uint8).tobytes()

    def inspect(self) -> str:
        """Return the inspection page of the text, with what its tokens did for the last one's prediction alone."""
        return str(inspect_page(self.model, self.ids[:MOST], last_only=True))


def by_columns(params: Params) -> Params:
    """Return the same parameters, matrices stored column by column.

    NumPy has no BLAS in a browser, and its own product reads a column of the matrix for each number that comes out.
    """
    embeddings = {id(params.wte), id(params.wpe), id(params.lm_head)}
    return map_arrays(params, lambda x: np.asfortranarray(x) if x.ndim == 2 and id(x) not in embeddings else x)
