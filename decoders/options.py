"""What a caller may ask of decoding: transformers' GenerationConfig by its names, checked before work starts."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import warpers

SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")
BEAMS_ONLY = ("length_penalty", "early_stopping")


@dataclass(frozen=True)
class Options:
    """The options of `generate`, with GenerationConfig's names and meaning; nothing is on that was not asked for.

    Unlike there, ``top_k`` is off unless given, and an option that the chosen strategy would ignore is an error, as
    is any value outside its range: ``ValueError``, in one line, with the rule and the value.

    Besides GenerationConfig's: ``seed`` and ``rng`` choose torch's random stream ("cpu", or "cuda" with
    ``cuda_multiprocessors``); ``uniforms`` gives the draws as data instead; ``presence_penalty`` and
    ``frequency_penalty`` are OpenAI's; ``top_logprobs`` asks for the likeliest alternatives of each token.
    """

    max_new_tokens: int = 50
    min_new_tokens: int | None = None
    min_length: int | None = None
    max_time: float | None = None
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None  # taken as transformers takes it, without a use here: no row is ever padded

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
    renormalize_logits: bool = False

    num_beams: int = 1
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None

    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
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

    output_scores: bool = False
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("max_new_tokens", 1), ("num_beams", 1), ("num_return_sequences", 1), ("top_k", 1),
                             ("no_repeat_ngram_size", 1), ("min_new_tokens", 0), ("min_length", 0),
                             ("top_logprobs", 0), ("seed", 0), ("cuda_multiprocessors", 1)):  # fmt: skip
            value = getattr(self, name)
            if value is not None:
                whole = isinstance(value, int) and not isinstance(value, bool)
                warpers.require(whole and value >= lowest, f"{name} must be a whole number of at least {lowest}", value)
        for name in (*SAMPLING_ONLY, "length_penalty", "repetition_penalty", "presence_penalty", "frequency_penalty",
                     "max_time"):  # fmt: skip
            value = getattr(self, name)
            if value is not None:
                number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
                warpers.require(number, f"{name} must be a number", value)
        self._check_ranges()
        self._check_strategy()

    def _check_ranges(self) -> None:
        warpers.require(self.rng in ("cpu", "cuda"), "rng must be 'cpu' or 'cuda'", self.rng)
        warpers.require(self.early_stopping in (None, True, False, "never"),
                        "early_stopping must be True, False or 'never'", self.early_stopping)  # fmt: skip
        if self.max_time is not None:
            warpers.require(self.max_time > 0, "max_time must be above 0 seconds", self.max_time)
        if self.min_new_tokens is not None:
            rule = f"min_new_tokens must be at most max_new_tokens ({self.max_new_tokens})"
            warpers.require(self.min_new_tokens <= self.max_new_tokens, rule, self.min_new_tokens)
        if self.repetition_penalty is not None:
            warpers.require(self.repetition_penalty > 0, "repetition_penalty must be above 0", self.repetition_penalty)
        for warper, value in ((warpers.Temperature, self.temperature), (warpers.TopP, self.top_p),
                              (warpers.MinP, self.min_p), (warpers.EpsilonCutoff, self.epsilon_cutoff),
                              (warpers.EtaCutoff, self.eta_cutoff), (warpers.TopH, self.top_h)):  # fmt: skip
            if value is not None:
                warper(value)
        if self.typical_p is not None and self.typical_p != 1:
            warpers.Typical(self.typical_p)
        for name in ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens"):
            value = getattr(self, name)
            if value is not None:
                warpers.require(len(value) > 0 and all(value if name == "bad_words_ids" else [1]),
                                f"{name} must not be empty", value)  # fmt: skip

    def _check_strategy(self) -> None:
        if not self.do_sample:
            for name in (*SAMPLING_ONLY, "uniforms"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} acts only when sampling; give do_sample too, or leave {name} out")
            if self.num_beams == 1 and self.num_return_sequences > 1:
                raise ValueError(f"greedy decoding gives one sequence, got num_return_sequences "
                                 f"{self.num_return_sequences}; give do_sample or num_beams")  # fmt: skip
        if self.num_beams == 1:
            for name in BEAMS_ONLY:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} acts only in beam search; give num_beams above 1, or leave {name} out")
        elif self.num_return_sequences > self.num_beams:
            raise ValueError(f"num_return_sequences must be at most num_beams ({self.num_beams}), "
                             f"got {self.num_return_sequences}")  # fmt: skip
        elif self.uniforms is not None:
            raise ValueError("uniforms can't drive beam sampling, which draws without replacement")

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text."""
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)

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
        rule = f"num_beams must be at most the vocabulary's size ({vocabulary})"
        warpers.require(self.num_beams == 1 or self.num_beams <= vocabulary, rule, self.num_beams)
        named: dict[str, Any] = {
            "eos_token_id": self.eos_token_ids,
            "pad_token_id": None if self.pad_token_id is None else [self.pad_token_id],
            "suppress_tokens": self.suppress_tokens,
            "begin_suppress_tokens": self.begin_suppress_tokens,
            "forced_bos_token_id": None if self.forced_bos_token_id is None else [self.forced_bos_token_id],
            "logit_bias": self.logit_bias,
            "bad_words_ids": [token for word in self.bad_words_ids or () for token in word],
        }
        for name, tokens in named.items():
            for token in tokens or ():
                warpers.require(0 <= token < vocabulary, f"{name} must hold ids between 0 and {vocabulary - 1}", token)
