"""Which strategy some options ask for, and what each of them needs or can't have.

=================  ============================================  ================================
strategy           asked for by                                  where it is
=================  ============================================  ================================
greedy             nothing                                       `generate`
sampling           do_sample                                     `generate`, `sampling`
prompt look-up     prompt_lookup_num_tokens                      `assisted`, `candidates`
draft model        assistant_model                               `assisted`, `candidates`
best of n          do_sample, best_of                            `best_of`
contrastive        penalty_alpha, top_k                          `contrastive`
DoLa               dola_layers (greedy or with do_sample)        `dola`
beam search        num_beams                                     `beam`
beam sampling      num_beams, do_sample                          `beam`
diverse beams      num_beams, num_beam_groups, diversity_penalty `group_beam`
constrained beams  num_beams, force_words_ids                    `constrained_beam`
stochastic beams   num_beams, do_sample, stochastic_beams        `stochastic_beam`
exhaustive         exhaustive                                    `exhaustive`
=================  ============================================  ================================

Prompt look-up and a draft model speed up greedy decoding, sampling and best of n. A teaching notebook's own algorithms,
its beam search among them, are functions of `notebook`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import require
from .kinds import is_id

if TYPE_CHECKING:
    from .interface import Completion
    from .options import Options

# What only the whole search knows: its result can't be streamed token by token.
SEARCHES = ("exhaustive", "force_words_ids", "num_beam_groups", "stochastic_beams", "num_beams", "best_of")


def search(options: Options) -> Callable[..., list[Completion]] | None:
    """The search that the options ask for; None where tokens are chosen one by one, so that they can be streamed."""
    if options.exhaustive:
        from .exhaustive import exhaustive_search

        return exhaustive_search
    if options.force_words_ids is not None:
        from .constrained_beam import constrained_beam_search

        return constrained_beam_search
    if options.num_beam_groups > 1:
        from .group_beam import group_beam_search

        return group_beam_search
    if options.stochastic_beams:
        from .stochastic_beam import stochastic_beam_search

        return stochastic_beam_search
    if options.num_beams > 1:
        from .beam import beam_search

        return beam_search
    if options.best_of is not None:
        from .best_of import best_of

        return best_of
    return None


def searches(options: Options) -> bool:
    """Whether the options ask for a search."""
    return any(given(options, name) for name in SEARCHES)


def check(options: Options) -> None:
    """``ValueError``, in one line, for the first contradiction between a strategy and another option."""
    o = options
    if o.num_beam_groups > 1 or o.diversity_penalty is not None:
        diverse(o)
    if o.force_words_ids is not None:
        words(o.force_words_ids)
        beams_for("force_words_ids", o)
        excluded("force_words_ids", o, "do_sample", "num_beam_groups", "stochastic_beams")
        ends = {token for phrase in phrases(o.force_words_ids) for token in phrase} & set(o.eos_token_ids)
        require(not ends, "force_words_ids must not hold an end-of-text", sorted(ends))
    if o.penalty_alpha is not None:
        require(0 < o.penalty_alpha <= 1, "penalty_alpha must be above 0 and at most 1", o.penalty_alpha)
        require(o.top_k is not None and o.top_k > 1, "penalty_alpha needs top_k of at least 2", o.top_k)
        excluded("penalty_alpha", o, "do_sample", "num_beams", "dola_layers", "exhaustive")
    if o.dola_layers is not None:
        layers(o.dola_layers)
        excluded("dola_layers", o, "num_beams", "exhaustive")
        # It removes all but the likeliest tokens before any processor acts: what a constraint allows is rarely left.
        excluded("dola_layers", o, "constraint")
    if o.best_of is not None:
        require(o.do_sample, "best_of needs do_sample", o.do_sample)
        rule = f"best_of must be at least num_return_sequences ({o.num_return_sequences})"
        require(o.best_of >= o.num_return_sequences, rule, o.best_of)
        excluded("best_of", o, "num_beams", "exhaustive")
    if o.stochastic_beams:
        require(o.do_sample, "stochastic_beams needs do_sample", o.do_sample)
        beams_for("stochastic_beams", o)
        excluded("stochastic_beams", o, "length_penalty", "early_stopping", "num_beam_groups")
    if o.assisted:
        assistance(o)
    if o.exhaustive:
        excluded("exhaustive", o, "do_sample", "num_beams", "early_stopping", "max_time")
    if any(given(o, name) for name in SEARCHES if name != "best_of"):
        for name in ("output_scores", "top_logprobs"):
            if given(o, name):
                raise ValueError(f"{name} is for strategies that choose token by token; a search gives a trace instead")


def assistance(o: Options) -> None:
    """Assistance goes with what chooses token by token; a draft model's draws come from a stream alone."""
    name = "assistant_model" if o.assistant_model is not None else "prompt_lookup_num_tokens"
    excluded(name, o, "num_beams", "penalty_alpha", "dola_layers", "exhaustive")
    if o.assistant_model is not None:
        require(callable(o.assistant_model), "assistant_model must be what makes a stepper", o.assistant_model)
        excluded(name, o, "prompt_lookup_num_tokens", "uniforms")
    schedules = (None, "constant", "heuristic", "heuristic_transient")
    rule = "num_assistant_tokens_schedule must be 'constant', 'heuristic' or 'heuristic_transient'"
    require(o.num_assistant_tokens_schedule in schedules, rule, o.num_assistant_tokens_schedule)
    threshold = o.assistant_confidence_threshold
    rule = "assistant_confidence_threshold must be between 0 and 1"
    require(threshold is None or 0 <= threshold <= 1, rule, threshold)


def diverse(o: Options) -> None:
    """Group beams need both of their options, beams that divide, and no draws."""
    if o.num_beam_groups == 1:
        raise ValueError("diversity_penalty acts only between groups of beams; give num_beam_groups above 1 too")
    beams_for("num_beam_groups", o)
    rule = f"num_beam_groups must divide num_beams ({o.num_beams})"
    require(o.num_beams % o.num_beam_groups == 0, rule, o.num_beam_groups)
    rule = "num_beam_groups needs a finite diversity_penalty above 0, or its groups would be alike"
    require(o.diversity_penalty is not None and 0 < o.diversity_penalty < float("inf"), rule, o.diversity_penalty)
    excluded("num_beam_groups", o, "do_sample")


def words(forced: Any) -> None:
    """Each entry of force_words_ids is a phrase of ids, or a choice of phrases of which none begins another."""
    rule = "force_words_ids must be a list of phrases (lists of ids) or of lists of phrases"
    require(isinstance(forced, Sequence) and len(forced) > 0, rule, forced)
    for entry in forced:
        require(isinstance(entry, Sequence) and len(entry) > 0, rule, entry)
    for phrase in phrases(forced):
        known = isinstance(phrase, Sequence) and len(phrase) > 0
        require(known and all(isinstance(token, int) and token >= 0 for token in phrase), rule, phrase)
    for entry in forced:
        if isinstance(entry[0], Sequence):
            ordered = sorted(list(phrase) for phrase in entry)
            for one, following in itertools.pairwise(ordered):
                begins = following[: len(one)] == one
                require(not begins, "no phrase of a choice in force_words_ids may begin another", [one, following])


def phrases(forced: Any) -> list[Any]:
    """Every phrase in force_words_ids, choices opened up."""
    return [phrase for entry in forced for phrase in (entry if isinstance(entry[0], Sequence) else [entry])]


def layers(chosen: Any) -> None:
    """dola_layers is "low", "high" or layers by number."""
    rule = "dola_layers must be 'low', 'high' or a list of layers"
    named = chosen in ("low", "high") if isinstance(chosen, str) else isinstance(chosen, Sequence) and len(chosen) > 0
    require(named, rule, chosen)
    if not isinstance(chosen, str):
        require(all(is_id(layer) for layer in chosen), rule, chosen)


def beams_for(name: str, options: Options) -> None:
    """``ValueError`` where there are no beams."""
    if options.num_beams == 1:
        raise ValueError(f"{name} acts only in beam search; give num_beams above 1 too")


def excluded(name: str, options: Options, *others: str) -> None:
    """``ValueError`` for the first of `others` that was given beside `name`."""
    for other in others:
        if given(options, other):
            raise ValueError(f"{name} can't be combined with {other}, got {getattr(options, other)!r}")


def given(options: Options, name: str) -> bool:
    """Whether an option differs from its default."""
    return bool(getattr(options, name) != type(options).__dataclass_fields__[name].default)
