"""The order of processors, and options that concern several of them: orders, profiles, how many tokens are kept.

A profile reproduces another engine's conventions: its order, defaults and tie rule.

=============  =================================================  =====================================================
profile        order of the samplers                              besides
=============  =================================================  =====================================================
(none)         temperature, top_n_sigma, top_h, top_k, top_p,     transformers': top_k keeps ties, top_p sums upwards
               min_p, typical_p, epsilon, eta, xtc, mirostat
"llama.cpp"    top_n_sigma, top_k 40, typical_p, top_p 0.95,      exactly k; top_p sums downwards; penalties first, over
               min_p 0.05, xtc, temperature 0.8                   the last 64 ids; mirostat acts after temperature alone
"ctranslate2"  top_k 1, temperature, top_p                        exactly k; top_p sums downwards
"mlx-lm"       top_p, min_p, xtc, top_k, temperature              exactly k; top_p sums downwards, ties stay; penalties
                                                                  over the last 20 ids
"vllm"         temperature, min_p, top_k, top_p                   transformers' ties; bad words only in the new text
"exllamav3"    temperature, min_p, top_k, top_p                   ties stay; top_p drops the token that crosses p;
                                                                  penalties count the prompt
"koboldcpp"    top_k 100, top_a, tfs, typical_p, top_p 0.92,      llama.cpp's samplers; penalties over the last 320 ids
               min_p, temperature 0.7, smoothing, xtc
=============  =================================================  =====================================================

Checked against llama.cpp's and mlx-lm's own functions; the others against their sources (CTranslate2's
``src/sampling.cc``, ``src/ops/topp_mask_cpu.cc``; see `vllm`, `exllamav3`, `koboldcpp`). Their random streams and beam
searches are their own. A constraint comes first with llama.cpp's profile, as a grammar does there where the first
choice breaks it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.method import Method, Option
from ..base.value_types import NAMES, WHOLE, ValueType

GROUP = "Samplers of other engines"
ORDER = Option(
    "order", NAMES, may_be_empty=False, group=GROUP, help="The samplers to use, in the order in which they act."
)
ENGINE = ValueType("profile", "str", "a profile's name", lambda value: isinstance(value, str))
PROFILE = Option(
    "profile",
    ENGINE,
    group=GROUP,
    help="Follow another engine's order of samplers, its defaults and its rule for ties.",
)
KEEP = Option(
    "min_tokens_to_keep",
    WHOLE,
    interval="[1, inf)",
    only="sampling",
    group=GROUP,
    help="Samplers keep at least this many tokens.",
)


def rank(name: str, last: bool, order: Sequence[str]) -> int:
    """Return a processor's place in an order. Of those that it doesn't name, rules come first and `last` ones last."""
    if name in order:
        return list(order).index(name)
    return len(order) if last else -1


METHODS = (Method("order", options=(PROFILE, ORDER, KEEP), asked=()),)
