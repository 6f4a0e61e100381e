"""The configuration of a GPT-2: the fields of ``config.json``, checked, and the published sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..system.files import read_object
from .config_keys import REFUSED, refuse, unknown
from .ops import ACTIVATIONS

# Names under which other configurations of transformers know GPT-2's fields (GPT2Config.attribute_map).
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

LARGEST = (2 - 2**-23) * 2.0**127  # float32's


@dataclass(frozen=True)
class Config:
    """The shape of a GPT-2 and the constants of its arithmetic, named as in ``config.json``.

    The defaults are GPT-2 small's (Radford et al. 2019, table 2), as in transformers' ``GPT2Config``.
    Building one checks it: ``ValueError`` says which rule is broken and by what value.
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    # Asks for scores in float32 where weights are float16; here scores are never narrower than float32.
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | tuple[int, ...] | None = 50256
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            value = getattr(self, name)
            if name == "n_inner" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd must be a multiple of n_head, got n_embd {self.n_embd} and n_head {self.n_head}")
        if self.activation_function not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation_function must be one of {known}, got {self.activation_function!r}")
        epsilon = self.layer_norm_epsilon
        if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon <= LARGEST:
            raise ValueError(f"layer_norm_epsilon must be in [0, {LARGEST:.1e}], as float32 holds it, got {epsilon!r}")
        for name in (
            "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx",
            "tie_word_embeddings",
            "reorder_and_upcast_attn",
        ):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            several = isinstance(value, tuple) and name == "eos_token_id"
            for token in value if several else () if value is None else (value,):
                if isinstance(token, bool) or not isinstance(token, int):
                    raise ValueError(f"{name} must be a token id, got {value!r}")

    @property
    def head_width(self) -> int:
        """K: the width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        """F: the width of the MLP's hidden layer, four times ``n_embd`` unless ``n_inner`` says otherwise."""
        return self.n_inner if self.n_inner is not None else 4 * self.n_embd

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text; empty where the model has none."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Config:
        """Return the configuration that a parsed ``config.json`` describes.

        Fields that cannot change a forward pass are ignored, as in transformers (`passed_over` lists those that
        transformers doesn't know either). A field that asks for another forward pass is refused by name
        (``ValueError``), since ignoring it would silently give wrong text.
        """
        kind = fields.get("model_type", "gpt2")
        if kind != "gpt2":
            raise ValueError(f"model_type must be 'gpt2', got {kind!r}")
        known = {field.name for field in dataclasses.fields(cls)}
        chosen: dict[str, Any] = {}
        others = {}
        for name, value in fields.items():
            field = ALIASES.get(name, name)
            if field in known:
                value = tuple(value) if isinstance(value, list) else value
                if field in chosen and chosen[field] != value:
                    raise ValueError(f"{name} and {field} contradict each other: {value!r} and {chosen[field]!r}")
                chosen[field] = value
            elif value and name in REFUSED:
                raise ValueError(f"{name} is set to {value!r:.200}: {REFUSED[name]}")
            else:
                others[name] = value
        config = cls(**chosen)
        refuse(others, config)
        return config

    @classmethod
    def passed_over(cls, fields: Mapping[str, object]) -> list[str]:
        """List the keys of a parsed ``config.json`` that neither GPT-2 nor its tools know."""
        known = {*ALIASES, *(field.name for field in dataclasses.fields(cls))}
        return unknown({name: value for name, value in fields.items() if name not in known})

    @classmethod
    def from_file(cls, path: Path) -> Config:
        """Read ``config.json``; ``ValueError`` names the file if it is broken or not GPT-2's."""
        fields = read_object(path)
        try:
            return cls.from_dict(fields)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


# The published sizes (Radford et al. 2019, table 2; distilgpt2: Sanh et al. 2019).
PUBLISHED = {
    "gpt2": Config(),
    "gpt2-medium": Config(n_embd=1024, n_layer=24, n_head=16),
    "gpt2-large": Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt2-xl": Config(n_embd=1600, n_layer=48, n_head=25),
    "distilgpt2": Config(n_layer=6),
}
