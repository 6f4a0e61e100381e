"""`GPT2`: a model, its tokenizer and the decoders, with text in and text out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

import decoders
from decoders import Options

from ..display import Texts
from ..model.ids import check_prompt
from ..session.first_layers import first_layers
from ..session.model import Model
from . import constraints, distinct, generation_config, healing, save
from .assistants import drafting
from .continuations import bytes_of, continuations
from .requests import Prompt, Reader, capacity, is_batch
from .results import Generation as Generation
from .results import generation, pieces
from .scoring import By, Choice, Score, batches, nll, nlls, rank
from .stopping import criteria
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .requests import Request


class GPT2(Model):
    """A GPT-2 that reads and writes text. Load one with `GPT2.from_pretrained`."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's folder, loaded on first use: with ids alone the model works without one."""
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
        return self._reader.eos_token_ids

    # A text is a sequence of texts too: of the forms below, the first that fits is the one that counts.
    @overload
    def generate(  # type: ignore[overload-overlap]
        self,
        prompt: Prompt,
        *,
        num_return_sequences: None = None,
        trace: list[Any] | None = None,
        **options: Unpack[Request],
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        num_return_sequences: int,
        trace: list[Any] | None = None,
        **options: Unpack[Request],
    ) -> list[Generation]: ...

    @overload
    def generate(
        self,
        prompt: Sequence[Prompt],
        *,
        num_return_sequences: int | None = None,
        trace: list[Any] | None = None,
        **options: Unpack[Request],
    ) -> list[Generation]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        num_return_sequences: int | None = None,
        trace: list[Any] | None = None,
        **options: Unpack[Request],
    ) -> Generation | list[Generation]:
        """Continue a prompt, or each of a list of prompts: text or ids, of any lengths.

        Options carry the names and meaning of transformers' ``GenerationConfig`` (see `decoders.Options`), and
        ``stop_strings``. One prompt without `num_return_sequences` gives a `Generation`; anything else a list of them,
        in transformers' order. ``force_words_ids`` may hold texts, and ``assistant_model`` be a model or the name of
        one, which is then loaded for this call; its vocabulary may be another.

        ``stopping_criteria`` is a callable or a list of some: each is asked after every token, as
        ``stop(prompt ids, new ids) -> bool``, and a text ends ("stop") where one says yes, in every strategy; a beam
        then competes as one that ended.

        ``generation_config=True`` takes the settings of the folder's ``generation_config.json`` for options that aren't
        given here (but for `num_return_sequences`); how texts end is taken from there in any case.

        ``token_healing`` takes each prompt's last token back and regrows it (see `healing`). The text continues the
        healed prompt, which the result has as ``prompt``.

        A list given as `trace` receives what happens, step by step: which processor removed how much, or what a search
        looked at (`decoders.trace`). ``ValueError``, in one line, for an option or prompt that can't be.

        One of ``regex``, ``json_schema``, ``choice`` (a list of texts) and ``grammar`` holds the new text to a form,
        the prompt aside (see `constraints`): what ends with "stop" has it, what "length" cuts off may not. A form is
        one of text, which tokens can often spell in several ways. Beams give each ``choice`` once, in the spelling with
        the best score (see `distinct`); `rank_choices` compares all of them, as the tokenizer spells them.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> out = model.generate("Once upon a time", max_new_tokens=5, do_sample=True, top_p=0.9, seed=1)
            >>> len(out.ids), len(out.logprobs), out.finish_reason
            (5, 5, 'length')
            >>> [one.prompt for one in model.generate(["The king", "The sea"], num_beams=2, max_new_tokens=3)]
            ['The king', 'The sea']
        """
        several = is_batch(prompt)
        names: dict[str, Any] = dict(options)
        prompts = self._prompts(cast("list[Prompt]", prompt if several else [prompt]), names)
        if num_return_sequences is not None:
            names["num_return_sequences"] = num_return_sequences
        wanted = names.pop("stopping_criteria", None)
        strings, chosen = self.options(names, max(map(len, prompts), default=0))
        room = capacity(prompts, chosen, self.config.n_positions)
        completions = distinct.generate(
            lambda: self.start(capacity=room),
            prompts,
            chosen,
            context=self.config.n_positions,
            stopping=criteria(wanted, strings, lambda: self.tokenizer),
            trace=trace,
        )
        copies, tokenizer = chosen.num_return_sequences, self.tokenizer if self.has_tokenizer else None
        written = [
            generation(prompts[number // copies], one, chosen.eos_token_ids, tokenizer)
            for number, one in enumerate(completions)
        ]
        return written if several or num_return_sequences is not None else written[0]

    def stream(self, prompt: Prompt, **options: Unpack[Request]) -> Iterator[str]:
        """The text of one prompt's continuation, piece by piece as it is written, never a broken character.

        The options are `generate`'s, for one sequence without beams; they are checked at once, before the first piece.
        With ``token_healing`` the pieces continue the healed prompt, which `generate` returns as ``prompt``.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> pieces = list(model.stream("The king", max_new_tokens=5))
            >>> "".join(pieces) == model.generate("The king", max_new_tokens=5).text
            True
        """
        names = cast("dict[str, Any]", dict(options))
        prompts = self._prompts([prompt], names)
        wanted = names.pop("stopping_criteria", None)
        strings, chosen = self.options(names, len(prompts[0]))
        if not chosen.streams:
            raise ValueError("only one sequence can be streamed; beams and several sequences are known at their end")
        tokens = decoders.stream(
            self.start(capacity=capacity(prompts, chosen, self.config.n_positions)),
            prompts,
            chosen,
            context=self.config.n_positions,
            stopping=criteria(wanted, strings, lambda: self.tokenizer),
        )
        return pieces(tokens, self.tokenizer, chosen.eos_token_ids)

    def score(
        self,
        text: Prompt,
        *,
        prompt: Prompt | None = None,
        stride: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Score:
        """Measure how well the model predicts every token of a text. The first token follows the prompt or, without
        one, ``<|endoftext|>``.

        Texts longer than the context are read in windows of the whole context, each `stride` tokens on (half the
        context unless given): a token is predicted from at least context − stride tokens, if there are as many.
        `progress` receives the number of tokens that each window has scored. A prompt and the text after it are
        tokenized as `rank_choices` does.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> score = model.score("The old man had three sons.")
            >>> score.tokens, score.bytes, score.bits_per_byte < 1.5
            (7, 27, True)
        """
        before, ids = self._parted(prompt, text)
        total = nll(self, np.array([*before, *ids]), len(before), stride, progress)
        return Score(total, len(ids), self._bytes(text, ids))

    def score_all(self, pairs: Sequence[tuple[Prompt | None, Prompt]]) -> list[Score]:
        """Score several (prompt, text) pairs as `score` does; short texts are read together.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> [one.tokens for one in model.score_all([(None, "The king"), ("The king", " was old")])]
            [2, 2]
        """
        rows = [self._parted(prompt, text) for prompt, text in pairs]
        total = [0.0] * len(rows)
        short = [at for at, (before, ids) in enumerate(rows) if len(before) + len(ids) <= self.config.n_positions + 1]
        for some in batches(short, [len(before) + len(ids) for before, ids in rows]):
            found = nlls(self, [([*rows[at][0], *rows[at][1]], len(rows[at][0])) for at in some])
            for at, value in zip(some, found, strict=True):
                total[at] = value
        for at in set(range(len(rows))) - set(short):
            before, ids = rows[at]
            total[at] = nll(self, np.array([*before, *ids]), len(before))
        return [
            Score(value, len(ids), self._bytes(text, ids))
            for value, (_, ids), (_, text) in zip(total, rows, pairs, strict=True)
        ]

    def _parted(self, prompt: Prompt | None, text: Prompt) -> tuple[list[int], list[int]]:
        """Return the ids before a scored text, and the text's own ids."""
        check_prompt(text, "a text")
        if not len(text):
            raise ValueError("there is nothing to score: the text is empty")
        before, (ids,) = continuations(self._reader, [] if prompt is None else prompt, [text])
        return before, ids

    def rank_choices(self, prompt: Prompt, choices: Sequence[Prompt], *, by: By = "sum") -> list[Choice]:
        """Which of several continuations the model finds likeliest, best first: multiple choice by likelihood.

        `by` is what counts: the log-probability of the whole choice ("sum"), the mean of its tokens ("token"), or the
        sum over its bytes ("byte"), which long choices don't lose by. Choices are read in one batch, after a prompt
        that is read once.

        The prompt and a choice are tokenized together, as one text; what is scored starts at the first token at which
        the texts differ from the prompt alone. So a choice may start with a space, or the prompt end in one, and every
        choice pays for the same stretch of text. Ids are taken as they are. ``ValueError`` for no choices, an empty
        one, or more than the context holds.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> best, *rest = model.rank_choices("The king sat on his", [" throne", " hat"])
            >>> best.choice, best.share > 0.5
            (' throne', True)
        """
        if isinstance(choices, str) or not len(choices):
            raise ValueError(f"choices must be a list of at least one text, got {choices!r}")
        if by not in ("sum", "token", "byte"):
            raise ValueError(f"by must be 'sum', 'token' or 'byte', got {by!r}")
        for choice in choices:
            check_prompt(choice, "a choice")
            if not len(choice):
                raise ValueError("a choice must have at least one token, got an empty one")
        before, rests = continuations(self._reader, prompt, choices)
        lengths = [self._bytes(choice, rest) for choice, rest in zip(choices, rests, strict=True)]
        return rank(self, before, choices, rests, lengths, by)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model into a folder, as transformers would: configuration, safetensors, tokenizer.

        `GPT2.from_pretrained(folder)` and transformers load it. Files that are there already are replaced, each as a
        whole; the weights keep their float32 or float64. Edits of activations (`with_edits`) aren't part of it.
        ``ValueError`` for weights of a reduced precision; ``OSError`` names a file that can't be written.

        Examples:
            >>> import tempfile
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_pretrained(folder)
            ...     again = GPT2.from_pretrained(folder)
            >>> again.config == model.config
            True
        """
        save.save_pretrained(Path(folder), self.params, self.config, self.folder)

    # ---- text wherever ids go --------------------------------------------------------------------------------------

    def to_ids(self, prompt: Any, *, prepend_bos: bool = False) -> Any:
        """Return the ids to study: those of a text, or a list for each of several texts; ids are returned as they are.

        With `prepend_bos` texts begin with the model's begin-of-text (TransformerLens's default, not ours), as an empty
        text does in any case. ``ValueError`` for a text that is longer than the context.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> model.to_ids("The king") == model.tokenizer.encode("The king")
            True
            >>> len(model.to_ids("The king", prepend_bos=True))
            3
        """
        if isinstance(prompt, np.ndarray):
            return prompt  # in a training run each step's model is a new one, which would read its settings
        return self._reader.studied(prompt, prepend_bos)

    def to_single_token(self, text: str) -> int:
        """Return the id of a one-token text. ``ValueError`` lists the tokens of any other text.

        Examples:
            >>> from gpt2_np import GPT2
            >>> model = GPT2.from_pretrained()
            >>> model.tokenizer.decode([model.to_single_token(" king")])
            ' king'
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            pieces = " ".join(repr(piece) for piece in self.tokenizer.tokens(ids[:20]))
            raise ValueError(f"an answer must be one token, got {text!r:.60}, which is {len(ids)}: {pieces}")
        return ids[0]

    @property
    def texts(self) -> Texts:
        """The function that turns ids into texts for tables and pictures; the tokenizer is loaded on first use."""
        return Texts(lambda ids: self.tokenizer.tokens(ids) if self.has_tokenizer else Texts()(ids))

    # ---- from what callers say to what decoders take ----------------------------------------------------------------

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return a prompt's ids; an empty one starts from ``<|endoftext|>``. ``ValueError`` for ids that can't be
        fed.
        """
        return self._reader.prompt(prompt)

    def _prompts(self, prompts: Sequence[Prompt], names: dict[str, Any]) -> list[list[int]]:
        """Return the prompts' ids, with their ends regrown if ``token_healing``, which is removed from `names`, asks
        for it.
        """
        ids = [self.prompt_ids(one) for one in prompts]
        if not healing.wanted(names, self.generation_config):
            return ids
        return [healing.healed(one, self.tokenizer, self.start, self.config.vocab_size) for one in ids]

    def options(self, names: dict[str, Any], longest: int = 0) -> tuple[tuple[str, ...], Options]:
        """Return (stop strings, checked options), with the model's own end-of-text filled in if none was named.

        `longest` is the length of the longest prompt, for a ``max_length`` in generation_config.json.
        """
        return self._reader.options(names, longest)

    @cached_property
    def has_tokenizer(self) -> bool:
        """Tell whether ids can be turned into text."""
        try:
            return bool(self.tokenizer.size)
        except (OSError, ValueError):
            return False

    @property
    def _reader(self) -> Reader:
        return Reader(
            self.config,
            self.generation_config,
            lambda: self.tokenizer,
            lambda: self._vocabulary,
            self.start,
            lambda assistant: drafting(self, assistant, GPT2.from_pretrained),
            lambda layers: first_layers(self, layers).start(),
        )

    @cached_property
    def _vocabulary(self) -> constraints.Vocabulary:
        return constraints.Vocabulary(self.tokenizer, self.config.vocab_size)

    def _bytes(self, text: Prompt, ids: Sequence[int]) -> int:
        return bytes_of(text, ids, self.tokenizer if self.has_tokenizer else None)


def on_torch(name: str | Path | None = None, *, dtype: str = "float32", device: str = "cpu") -> GPT2:
    """Return the same model with torch's numbers, as the reference: transformers' forward pass under our decoders.

    Its ``implementation`` is a `torch_reference.TorchReference`. ``ValueError`` when torch and transformers aren't
    installed, or the device isn't there.
    """
    try:
        from ..torch_reference import TorchReference
    except ModuleNotFoundError:
        raise ValueError("the torch backend needs torch and transformers: pip install 'gpt2-np[reference]'") from None
    from ..weights.load import load

    reference = TorchReference(name, dtype=dtype, device=device)
    params = load(reference.folder, reference.config)
    return GPT2(params, reference.config, folder=reference.folder, implementation=reference)
