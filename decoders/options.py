"""What a caller may ask of decoding: transformers' GenerationConfig by its names, checked before work starts."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import checks, kinds, profiles, strategies

if TYPE_CHECKING:
    from .constraint import Automaton
    from .interface import RewindableStepper, Stepper
    from .watermark import Watermarking


@dataclass(frozen=True)
class Options:
    """The options of `generate`, with GenerationConfig's names and meaning; nothing is on that was not asked for.

    Unlike there, ``top_k`` is off unless given, and an option that the chosen strategy would ignore is an error, as
    is any value outside its range: ``ValueError``, in one line, with the rule and the value.

    Besides GenerationConfig's: ``seed`` and ``rng`` choose torch's random stream ("cpu", or "cuda" with
    ``cuda_multiprocessors``); ``uniforms`` gives the draws as data instead; ``presence_penalty`` and
    ``frequency_penalty`` are OpenAI's; ``top_logprobs`` asks for the likeliest alternatives of each token. llama.cpp's
    are ``top_n_sigma``, ``xtc_…``, ``dynatemp_…``, ``mirostat…``, ``dry_…`` and ``penalty_last_n``. ``order`` and
    ``profile`` change the order in which processors act (see `profiles`); a profile fills in its engine's defaults.
    ``unconditional`` makes the second stepper that ``guidance_scale`` needs, ``assistant_model`` the one that drafts.
    ``constraint`` is an automaton: only texts that it accepts are written (see `constraint`).
    """

    max_new_tokens: int = 50
    min_new_tokens: int | None = None
    min_length: int | None = None
    max_time: float | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None  # no row is ever padded; only diverse beams notice it, as in transformers

    do_sample: bool = False
    seed: int | None = None
    rng: Literal["cpu", "cuda"] = "cpu"
    cuda_multiprocessors: int | None = None
    uniforms: Sequence[float] | None = None
    num_return_sequences: int = 1

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    top_h: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None  # 0.1
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None  # 1
    mirostat: Literal[1, 2] | None = None
    mirostat_tau: float | None = None  # 5
    mirostat_eta: float | None = None  # 0.1
    min_tokens_to_keep: int | None = None
    renormalize_logits: bool = False
    order: Sequence[str] | None = None
    profile: Literal["llama.cpp", "ctranslate2", "mlx-lm"] | None = None

    num_beams: int = 1
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    num_beam_groups: int = 1
    diversity_penalty: float | None = None
    force_words_ids: Sequence[Sequence[int] | Sequence[Sequence[int]]] | None = None
    stochastic_beams: bool = False
    penalty_alpha: float | None = None
    dola_layers: Literal["low", "high"] | Sequence[int] | None = None
    best_of: int | None = None
    exhaustive: bool = False

    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None  # 2
    assistant_model: Callable[[], RewindableStepper] | None = None
    num_assistant_tokens: int | None = None  # 20
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] | None = None  # "constant"
    assistant_confidence_threshold: float | None = None  # 0.4

    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    penalty_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None  # 1.75
    dry_allowed_length: int | None = None  # 2
    dry_penalty_last_n: int | None = None  # the whole text
    dry_sequence_breakers: Sequence[Sequence[int]] | None = None
    guidance_scale: float | None = None
    negative_prompt_ids: Sequence[int] | Sequence[Sequence[int]] | None = None
    unconditional: Callable[[], Stepper] | None = None
    watermarking_config: Watermarking | Mapping[str, Any] | None = None
    no_repeat_ngram_size: int | None = None
    bad_words_ids: Sequence[Sequence[int]] | None = None
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Sequence[int], float]] | None = None
    logit_bias: Mapping[int, float] | None = None
    suppress_tokens: Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    prefix_allowed_tokens_fn: Callable[[int, Any], Sequence[int]] | None = None
    remove_invalid_values: bool = False
    constraint: Automaton | None = None

    output_scores: bool = False
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, kinds.plain(getattr(self, field.name)))
        kinds.check(self)
        # Plain fields from here on: settings as a configuration, and a profile's defaults as if they had been given.
        if self.watermarking_config is not None:
            from .watermark import configured

            object.__setattr__(self, "watermarking_config", configured(self.watermarking_config))
        for name, value in profiles.defaults(self).items():
            object.__setattr__(self, name, value)
        checks.check(self)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text."""
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

    def negative_prompt(self, number: int) -> Sequence[int] | None:
        """What guidance turns away from for a prompt; None where that is the prompt's own last id."""
        several: Any = self.negative_prompt_ids
        return several if several is None or isinstance(several[0], (int, np.integer)) else several[number]

    @property
    def assisted(self) -> bool:
        """Whether candidates are proposed for the model to check, several in one pass."""
        return self.prompt_lookup_num_tokens is not None or self.assistant_model is not None

    @property
    def streams(self) -> bool:
        """Whether the one text asked for is known token by token: no search, and not several texts."""
        return self.num_return_sequences == 1 and not strategies.searches(self)

    @classmethod
    def from_names(cls, names: Mapping[str, Any]) -> Options:
        """Options from a mapping; an unknown name is a ``ValueError`` that suggests the nearest."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                raise ValueError(f"there is no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return cls(**names)

    def check_vocabulary(self, vocabulary: int) -> None:
        """``ValueError`` when an option names a token outside the vocabulary, or asks for more than it holds."""
        checks.vocabulary(self, vocabulary)
