"""CTranslate2's order and defaults (``src/sampling.cc``, ``src/ops/topp_mask_cpu.cc``); llama.cpp's samplers."""

from __future__ import annotations

from ..base.method import Profile
from .llama_cpp import top_k, top_p

PROFILE = Profile(
    "ctranslate2",
    order=(
        "min_new_tokens",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "bad_words_ids",
        "suppress_tokens",
        "top_k",
        "temperature",
        "top_p",
    ),
    makes={"top_k": top_k, "top_p": top_p},
    defaults={"top_k": 1},
    lacks=("dynatemp_range", "prompt_ignore_length", "repetition_penalty_normalize"),
    keeps=("top_k", "top_p"),
)
