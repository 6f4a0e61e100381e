"""Text in, text out: a model, its tokenizer and the decoders, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

import decoders
from decoders import Completion, Options, Token
from decoders.base.interface import Assistance
from decoders.methods import option

from ..model.ids import check_vocabulary, whole_numbers
from ..session.model import BACKENDS, Model
from . import constraints, generation_config, save
from . import dry_breakers as breakers
from .scoring import By, Choice, Score, common, nll, rank
from .tokenizer import Tokenizer

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Generation:
    """One text that was written.

    ``text`` decodes ``ids``, the new ids, but for an end-of-text that the model chose; ``logprobs`` are the model's own
    log-probabilities of them (nats), before any processor; ``finish_reason`` is "stop" (end-of-text, a stop string)
    or "length" (max_new_tokens, or the context's end). ``score`` is a beam's. ``top`` and ``scores`` are there where
    ``top_logprobs`` and ``output_scores`` asked for them, ``assistance`` (passes, proposed, accepted, draft_passes)
    where prompt look-up or a draft model assisted.
    """

    prompt: str
    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: str
    score: float | None = None
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    scores: tuple[np.ndarray, ...] = ()
    assistance: Assistance | None = None


class GPT2(Model):
    """A GPT-2 that reads and writes text. Load one with `GPT2.from_pretrained`."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's folder, loaded on first use: ids work without one."""
        if self.folder is None:
            raise ValueError("this model has no folder, so no tokenizer; give ids instead of text")
        return Tokenizer.from_folder(self.folder, self.config)

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """The settings of the folder's ``generation_config.json`` (see `generation_config`)."""
        return generation_config.read(self.folder, self.config)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text unless ``eos_token_id`` is given."""
        return generation_config.ends(self.generation_config, self.config.vocab_size)

    def generate(self, prompt: Prompt | Sequence[Prompt], *, trace: list[Any] | None = None, **options: Any) -> Any:
        """Continue a prompt, or each of a list of prompts: text or ids, of any lengths.

        Options carry the names and meaning of transformers' ``GenerationConfig`` (see `decoders.Options`), and
        ``stop_strings``. One prompt with one sequence gives a `Generation`; anything else a list of them, in
        transformers' order. ``force_words_ids`` may hold texts, and ``assistant_model`` be a model of the same
        vocabulary or the name of one, which is then loaded for this call.

        ``stopping_criteria`` is a callable or a list of some: each is asked after every token, as
        ``stop(prompt ids, new ids) -> bool``, and a text ends ("stop") where one says yes, in every strategy; a beam
        then competes as one that ended.

        ``generation_config=True`` takes the settings of the folder's ``generation_config.json`` for options that aren't
        given here (but for ``num_return_sequences``); how texts end is taken from there in any case.

        A list given as `trace` receives what happens, step by step: which processor removed how much, or what a search
        looked at (`decoders.trace`). ``ValueError``, in one line, for an option or prompt that can't be.

        One of ``regex``, ``json_schema``, ``choice`` (a list of texts) and ``grammar`` holds the new text to a form,
        the prompt aside (see `constraints`): what ends with "stop" has it, what "length" cuts off may not.
        """
        several = is_batch(prompt)
        prompts = [self.prompt_ids(one) for one in cast(list, prompt if several else [prompt])]
        stopping = criteria(options.pop("stopping_criteria", None))
        stop_strings, chosen = self.options(options, max(map(len, prompts), default=0))
        stopping += self._stopping(stop_strings)
        session = self.start(capacity=self._capacity(prompts, chosen))
        completions = decoders.generate(
            session, prompts, chosen, context=self.config.n_positions, stopping=stopping, trace=trace
        )
        copies = chosen.num_return_sequences
        written = [self._generation(prompts[number // copies], one, chosen) for number, one in enumerate(completions)]
        return written if several or copies > 1 else written[0]

    def stream(self, prompt: Prompt, **options: Any) -> Iterator[str]:
        """The text of one prompt's continuation, piece by piece as it is written, never a broken character.

        The options are `generate`'s, for one sequence without beams; they are checked at once, before the first piece.
        """
        stopping = criteria(options.pop("stopping_criteria", None))
        prompts = [self.prompt_ids(prompt)]
        stop_strings, chosen = self.options(options, len(prompts[0]))
        stopping += self._stopping(stop_strings)
        if not chosen.streams:
            raise ValueError("only one sequence can be streamed; beams and several sequences are known at their end")
        session = self.start(capacity=self._capacity(prompts, chosen))
        tokens = decoders.stream(session, prompts, chosen, context=self.config.n_positions, stopping=stopping)
        return pieces(tokens, self.tokenizer, chosen.eos_token_ids)

    def score(
        self,
        text: Prompt,
        *,
        prompt: Prompt | None = None,
        stride: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Score:
        """How well the model predicts a text, every token of it: the first one follows the prompt, or where there is
        none ``<|endoftext|>``.

        Texts longer than the context are read in windows of the whole context, each `stride` tokens on (half the
        context unless given): a token is predicted from at least context − stride tokens, once there are so many.
        `progress` is told how many tokens each window has scored. A prompt and the text after it are tokenized as
        `rank_choices` does.
        """
        if not len(text):
            raise ValueError("there is nothing to score: the text is empty")
        before, (ids,) = self._continuations([] if prompt is None else prompt, [text])
        total = nll(self, np.array([*before, *ids]), len(before), stride, progress)
        return Score(total, len(ids), self._bytes(text, ids))

    def rank_choices(self, prompt: Prompt, choices: Sequence[Prompt], *, by: By = "sum") -> list[Choice]:
        """Which of several continuations the model finds likeliest, best first: multiple choice by likelihood.

        `by` is what counts: the log-probability of the whole choice ("sum"), the mean of its tokens ("token"), or the
        sum over its bytes ("byte"), which long choices don't lose by. Choices are read in one batch, behind a prompt
        that is read once.

        The prompt and a choice are tokenized together, as one text; what is scored starts at the first token at which
        the texts differ from the prompt alone. So a choice may start with a space, or the prompt end in one, and every
        choice pays for the same stretch of text. Ids are taken as they are. ``ValueError`` for no choices, an empty
        one, or more than the context holds.
        """
        if isinstance(choices, str) or not len(choices):
            raise ValueError(f"choices must be a list of at least one text, got {choices!r}")
        if by not in ("sum", "token", "byte"):
            raise ValueError(f"by must be 'sum', 'token' or 'byte', got {by!r}")
        for choice in choices:
            if not len(choice):
                raise ValueError("a choice must have at least one token, got an empty one")
        before, rests = self._continuations(prompt, choices)
        lengths = [self._bytes(choice, rest) for choice, rest in zip(choices, rests, strict=True)]
        return rank(self, before, choices, rests, lengths, by)

    def _continuations(self, prompt: Prompt, texts: Sequence[Prompt]) -> tuple[list[int], list[list[int]]]:
        """The ids that some texts have in common with the prompt before them, and what follows in each."""
        if isinstance(prompt, str) and all(isinstance(text, str) for text in texts):
            alone = self.tokenizer.encode(prompt)
            whole = [self.tokenizer.encode(prompt + cast(str, text)) for text in texts]
            shared = common([alone, *whole])
        else:
            alone = self._ids(prompt)
            whole = [[*alone, *self._ids(text, add_special_tokens=False)] for text in texts]
            shared = len(alone)
        for ids in whole:
            check_vocabulary(np.array(ids, object), self.config)
        return (whole[0][:shared] or self.prompt_ids([])), [ids[shared:] for ids in whole]

    def _ids(self, text: Prompt, *, add_special_tokens: bool = True) -> list[int]:
        if isinstance(text, str):
            return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return whole_numbers(text)

    def _bytes(self, text: Prompt, ids: Sequence[int]) -> int:
        if isinstance(text, str):
            return len(text.encode())
        return sum(len(self.tokenizer.bytes_of(token)) for token in ids) if self.has_tokenizer else 0

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into a folder, as transformers would: configuration, safetensors, tokenizer.

        `GPT2.from_pretrained(folder)` and transformers load it. Files that are there already are replaced, each as a
        whole; the weights keep their float32 or float64. Edits of activations (`with_edits`) aren't part of it.
        ``ValueError`` for weights of a reduced precision; ``OSError`` names a file that can't be written.
        """
        save.save_pretrained(Path(folder), self.params, self.config, self.folder)

    # ---- from what callers say to what decoders take ----------------------------------------------------------------

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """A prompt's ids; an empty one starts from ``<|endoftext|>``. ``ValueError`` for ids that can't be fed."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else whole_numbers(prompt)
        if not ids:
            start = generation_config.start(self.generation_config, self.config)
            if start is None:
                raise ValueError("an empty prompt needs a model with a bos_token_id or eos_token_id to start from")
            if not 0 <= start < self.config.vocab_size:
                rule = (
                    f"bos_token_id must be between 0 and {self.config.vocab_size - 1} for an empty prompt to start from"
                )
                raise ValueError(f"{rule}, got {start}")
            return [start]
        if len(ids) > self.config.n_positions:
            raise ValueError(
                f"the prompt must have at most {self.config.n_positions} tokens, the model's context, got {len(ids)}"
            )
        self.check_ids(ids)
        return ids

    def options(self, names: dict[str, Any], longest: int = 0) -> tuple[tuple[str, ...], Options]:
        """(stop strings, checked options), the model's own end-of-text filled in where none was named.

        `longest` is the length of the longest prompt, for a ``max_length`` in generation_config.json.
        """
        names = generation_config.asked(self.generation_config, names, longest)
        stop = names.pop("stop_strings", None)
        if stop is not None and not isinstance(stop, (str, list, tuple)):
            raise ValueError(f"stop_strings must be a text or a list of texts, got {stop!r:.60}")
        stop = (stop,) if isinstance(stop, str) else tuple(stop or ())
        if any(not isinstance(one, str) or not one for one in stop):
            raise ValueError(f"stop_strings must be texts of at least one character, got {list(stop)!r}")
        self._texts_to_ids(names)
        automaton = constraints.from_options(names, lambda: self._vocabulary)
        if automaton is not None:
            names["constraint"] = automaton
        if "eos_token_id" not in names:
            names["eos_token_id"] = self.eos_token_ids or None
        pad = self.generation_config.get("pad_token_id")
        if "pad_token_id" not in names and pad is not None and 0 <= pad < self.config.vocab_size:
            names["pad_token_id"] = pad
        options = Options.from_names(names)
        options.check_vocabulary(self.config.vocab_size)
        return stop, options

    def _texts_to_ids(self, names: dict[str, Any]) -> None:
        """What may be given as text, as ids; and what guidance, assistance and DRY need and weren't given."""
        listed = {
            name: isinstance(names.get(name), (list, tuple))
            for name in ("force_words_ids", "negative_prompt_ids", "dry_sequence_breakers")
        }
        if listed["force_words_ids"]:
            names["force_words_ids"] = [self._word_ids(one) for one in names["force_words_ids"]]
        if names.get("guidance_scale") is not None:
            names.setdefault("unconditional", self.start)
        if names.get("assistant_model") is not None:
            names["assistant_model"] = self._assistant(names["assistant_model"])
        negative = names.get("negative_prompt_ids")
        if isinstance(negative, str):
            names["negative_prompt_ids"] = self.prompt_ids(negative)
        elif negative is not None and listed["negative_prompt_ids"]:
            names["negative_prompt_ids"] = [self.prompt_ids(one) if isinstance(one, str) else one for one in negative]
        given = names.get("dry_sequence_breakers")
        multiplier = names.get("dry_multiplier")
        dry = multiplier is not None and not option("dry_multiplier").means_off(multiplier)
        if dry and (given is None or listed["dry_sequence_breakers"]):
            given = breakers.DEFAULT if given is None else given
            texts = [one for one in given if isinstance(one, str)]
            others = [one for one in given if not isinstance(one, str)]
            names["dry_sequence_breakers"] = [
                *others,
                *(breakers.breakers(self.tokenizer, texts) if texts else ()),
            ] or None

    def _assistant(self, assistant: Any) -> Any:
        """What makes steppers of a draft model, which may be a name, a model of the same vocabulary, or just that."""
        if isinstance(assistant, (str, Path)):
            backend = self.backend if self.backend in BACKENDS else None
            assistant = GPT2.from_pretrained(assistant, backend=backend)
        if not isinstance(assistant, Model):
            return assistant
        size, theirs = self.config.vocab_size, assistant.config.vocab_size
        if size != theirs:
            raise ValueError(f"assistant_model must have the model's vocabulary ({size} ids), got one of {theirs}")
        return assistant.start

    def _word_ids(self, words: Any) -> Any:
        """A phrase given as text as its ids, and a choice of phrases phrase by phrase."""
        if isinstance(words, str):
            return self.tokenizer.encode(words, add_special_tokens=False)
        several = words if isinstance(words, (list, tuple)) else None
        return words if several is None else [self._word_ids(one) if isinstance(one, str) else one for one in several]

    def _capacity(self, prompts: list[list[int]], options: Options) -> int:
        longest = max((len(prompt) + options.most(len(prompt)) for prompt in prompts), default=1)
        return min(self.config.n_positions, longest)

    def _stopping(self, stop_strings: tuple[str, ...]) -> list[decoders.Stopping]:
        return [StopString(self.tokenizer, one.encode()) for one in stop_strings]

    def _generation(self, prompt: list[int], completion: Completion, options: Options) -> Generation:
        shown = completion.ids
        if shown and shown[-1] in options.eos_token_ids:
            shown = shown[:-1]
        before, text = (self.tokenizer.decode(ids) if self.has_tokenizer else "" for ids in (prompt, shown))
        return Generation(
            before,
            text,
            completion.ids,
            completion.logprobs,
            completion.finish_reason,
            completion.score,
            tuple(completion.top),
            tuple(completion.scores),
            completion.assistance,
        )

    @cached_property
    def _vocabulary(self) -> constraints.Vocabulary:
        return constraints.Vocabulary(self.tokenizer, self.config.vocab_size)

    @cached_property
    def has_tokenizer(self) -> bool:
        """Whether ids can be turned into text here."""
        try:
            return bool(self.tokenizer.size)
        except (OSError, ValueError):
            return False


def on_torch(name: Any = None, *, dtype: str = "float32", device: str = "cpu") -> GPT2:
    """The same model with torch's numbers, as the reference: transformers' forward pass under our decoders.

    ``ValueError`` when torch and transformers aren't installed, or the device isn't there.
    """
    try:
        from ..torch_reference import TorchModel
    except ModuleNotFoundError:
        raise ValueError("the torch backend needs torch and transformers: pip install 'gpt2-np[reference]'") from None

    class TorchGPT2(TorchModel, GPT2):
        """`GPT2` on torch."""

    loaded: GPT2 = TorchGPT2.load(name, dtype=dtype, device=device)
    return loaded


@dataclass(frozen=True)
class StopString:
    """Stops once the string ends within the newest token (as transformers' ``StopStringCriteria``)."""

    tokenizer: Tokenizer
    string: bytes

    def __call__(self, prompt: Sequence[int], new: Sequence[int]) -> bool:
        newest, before, text = self.tokenizer.bytes_of(new[-1]), b"", [*prompt, *new[:-1]]
        while text and len(before) < len(self.string) - 1:
            before = self.tokenizer.bytes_of(text.pop()) + before
        before = before[max(0, len(before) - len(self.string) + 1) :]
        return self.string in before + newest


def pieces(tokens: Iterator[Token], tokenizer: Tokenizer, eos: Sequence[int]) -> Iterator[str]:
    """Text from tokens as they come, an end-of-text left out."""
    streamer = tokenizer.streamer()
    for token in tokens:
        piece = "" if token.id in eos else streamer.feed(token.id)
        if token.finish_reason is not None:
            piece += streamer.finish()
        if piece:
            yield piece


def criteria(given: Any) -> list[decoders.Stopping]:
    """``stopping_criteria`` as a list; ``ValueError`` for what can't be called."""
    several = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    for one in several:
        if not callable(one):
            raise ValueError(
                f"stopping_criteria must be a callable (prompt ids, new ids) -> bool, or a list of some, got {one!r}"
            )
    return several


def is_batch(prompt: Any) -> bool:
    """Whether a prompt is several: a list that holds texts or lists rather than ids."""
    return not isinstance(prompt, str) and len(prompt) > 0 and not isinstance(prompt[0], (int, np.integer))
