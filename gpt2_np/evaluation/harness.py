"""A model for lm-evaluation-harness: its requests, answered by our own code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from ..model.params import flatten
from ..text.continuations import common
from ..text.generation_config import acting
from ..text.gpt2 import GPT2
from ..text.stopping import StopString
from .answer_file import Answers, fingerprint
from .arguments import is_drawn, rows_of, whole, without_device
from .likelihoods import Answer, log_likelihoods

NAME = "gpt2_np"
SEED = 1234  # the harness's own for torch
NEW_TOKENS = 256  # where a task doesn't say how many, as for the harness's other models
ROWS = 32  # texts that are written at once
TOP_K = 50  # transformers' own where nobody says otherwise
IGNORED = ("use_cache",)  # what changes no text
Told = Callable[[int, Any], None]  # receives a request's place and its answer
Pair = tuple[tuple[str, str], list[int], list[int]]  # a request's texts; the ids of its context and its continuation


@register_model(NAME)
class HarnessModel(TemplateLM):
    """An ``lm_eval.api.model.LM`` around a `GPT2`: for ``lm_eval.simple_evaluate(model=HarnessModel("gpt2"), …)``.

    `pretrained` is a `GPT2`, or what `GPT2.from_pretrained` takes, with its `dtype` and `backend`. `batch_size` limits
    the rows of a batch ("auto": what fits 1,024 tokens); no answer depends on it but by rounding. `max_length` is a
    shorter context than the model's; `max_gen_toks` how many tokens are written where a task doesn't say;
    `add_bos_token` and `prefix_token_id` are as those of the harness's ``hf``. `cache` is a file in which answers are
    kept (see `answer_file`).

    Texts become ids and are cut as for ``hf``, so that numbers can be compared. What ``hf`` fails at has an answer
    here: a context of nothing but white space counts as an empty one, and a continuation without ids has the
    probability 1. Sampling is by torch's stream on the CPU, the number-th request seeded with ``seed + number``: its
    text depends on no other request, and the first is what ``hf`` draws after ``torch.manual_seed(seed)``.

    ``ValueError``, in one line, for arguments that can't be, and for requests that find no room in the context.
    """

    def __init__(
        self,
        pretrained: GPT2 | str | Path = "tales",
        dtype: str = "float32",
        backend: str | None = None,
        batch_size: int | str | None = "auto",
        max_length: int | None = None,
        max_gen_toks: int = NEW_TOKENS,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        seed: int = SEED,
        cache: str | Path | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise ValueError(f"device must be 'cpu', where this model runs, got {device!r}")
        self.model: GPT2 = (
            pretrained
            if isinstance(pretrained, GPT2)
            else GPT2.from_pretrained(pretrained, dtype=dtype, backend=backend)
        )
        self.rows = rows_of(batch_size)
        context = self.model.config.n_positions
        self.max_length = whole("max_length", context if max_length is None else max_length, 1, context)
        self.max_gen_toks = whole("max_gen_toks", max_gen_toks, 1, None)
        self.add_bos_token, self.seed = add_bos_token, whole("seed", seed, 0, None)
        self._first = int(self.model.prompt_ids([] if prefix_token_id is None else [prefix_token_id])[0])
        self._contexts = lru_cache(maxsize=256)(self._encode)  # choices follow each other with the same context
        self.kept = None if cache is None else Answers(Path(cache), fingerprint(self.model, self.settings))

    def __repr__(self) -> str:
        return f"HarnessModel({self.model!r})"

    # The harness's command line passes the device "cuda:0" where nobody names one: it says so of torch, not of this.

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> HarnessModel:
        """A model by the text of ``--model_args``; the harness's own `device` is passed over."""
        made: HarnessModel = super().create_from_arg_string(arg_string, without_device(additional_config))
        return made

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> HarnessModel:
        """A model by its arguments; the harness's own `device` is passed over."""
        made: HarnessModel = super().create_from_arg_obj(arg_dict, without_device(additional_config))
        return made

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings, besides the model and the request, on which an answer depends."""
        names = ("max_length", "max_gen_toks", "add_bos_token", "prefix_token_id")
        return {name: getattr(self, name) for name in names}

    # ---- texts and ids, as the harness's ``hf`` has them ------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return next(iter(self.model.eos_token_ids), self._first)

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before a text without a context."""
        return self._first

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **others: Any) -> list[int]:
        """A text's ids; what the tokenizer's files put around a text is there unless the text brings it, or is told."""
        return list(self._contexts(string, add_special_tokens))

    def _encode(self, string: str, add_special_tokens: bool | None) -> tuple[int, ...]:
        if add_special_tokens is None:
            begun = string.startswith(self.model.tokenizer.decode([self.prefix_token_id]))
            add_special_tokens = not begun and self.add_bos_token is not False
        return tuple(self.model.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The ids of a context, at least one, and of what is scored after it.

        They are the harness's own: white space at the context's end belongs to the continuation, and both become ids as
        one text. Where the context's last token swallows all of the continuation, which ``hf`` refuses, it is scored
        from the first token on that differs.
        """
        if context.strip():
            before, ids = self._encode_pair(context, continuation)
            if not ids and continuation:
                whole = self.tok_encode(context + continuation)
                shared = common([before, whole])
                before, ids = whole[:shared], whole[shared:]
            return before or [self.prefix_token_id], ids
        ids = self.tok_encode(context + continuation, add_special_tokens=False)
        return (ids[:1], ids[1:]) if ids[:1] == [self.prefix_token_id] else ([self.prefix_token_id], ids)

    # ---- the three kinds of requests --------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:
        """For each (context, continuation) its log-probability (nats), and whether greedy decoding would write it."""

        def work(places: list[int], told: Told) -> None:
            pairs = [self.pair(*requests[place].args) for place in places]
            self._score(pairs, lambda number, answer: told(places[number], answer))

        return [
            (float(value), bool(greedy))
            for value, greedy in self._answered("loglikelihood", requests, work, disable_tqdm)
        ]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """For each (text,) its log-probability (nats), in windows of the whole context, as the harness cuts them."""

        def work(places: list[int], told: Told) -> None:
            windows = [list(self.windows(requests[place].args[0])) for place in places]
            owners = [number for number, some in enumerate(windows) for _ in some]
            sums, left = [0.0] * len(places), [len(some) for some in windows]

            def one(window: int, answer: Answer) -> None:
                number = owners[window]
                sums[number] += answer[0]
                left[number] -= 1
                if not left[number]:
                    told(places[number], sums[number])

            for number, some in enumerate(windows):
                if not some:
                    told(places[number], 0.0)
            self._score([window for some in windows for window in some], one)

        return [float(value) for value in self._answered("loglikelihood_rolling", requests, work, disable_tqdm)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """For each (context, generation arguments) what the model writes, up to the first text of ``until``.

        The arguments are those that the harness knows, and every option of `GPT2.generate`; what transformers passes
        over (such as ``top_p`` where nothing is drawn) is passed over. A folder's ``generation_config.json`` counts,
        and where it doesn't say otherwise sampling is among the 50 best tokens, both as in transformers.
        """

        def work(places: list[int], told: Told) -> None:
            groups: dict[str, list[int]] = {}
            for place in places:
                groups.setdefault(json.dumps(requests[place].args[1], sort_keys=True, default=repr), []).append(place)
            for group in groups.values():
                self._write({place: requests[place].args[0] for place in group}, requests[group[0]].args[1], told)

        return [str(text) for text in self._answered("generate_until", requests, work, disable_tqdm)]

    def windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        """A text in pieces of (context, continuation): each token is predicted once, the last from a full context."""
        cut = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        yield from map(make_disjoint_window, cut)

    def _loglikelihood_tokens(self, requests: list[Pair], **others: Any) -> list[Answer]:
        return self._score([(before, ids) for _, before, ids in requests])

    def _score(
        self,
        pairs: Sequence[tuple[list[int], list[int]]],
        answered: Callable[[int, Answer], object] = lambda number, answer: None,
    ) -> list[Answer]:
        return log_likelihoods(self.model, pairs, context=self.max_length, rows=self.rows, answered=answered)

    def _write(self, contexts: dict[int, str], arguments: dict[str, Any], told: Told) -> None:
        """Write after contexts, by their requests' places, with the same arguments; greedy ones together."""
        names: dict[str, Any] = dict(normalize_gen_kwargs(arguments, self.max_gen_toks))
        end = self.model.tokenizer.decode([self.eot_token_id])
        until = [text for text in handle_stop_sequences(names.pop("until"), end) if text]
        new = names.pop("max_gen_toks")
        if not 1 <= new < self.max_length:
            raise ValueError(
                f"max_gen_toks must be between 1 and {self.max_length - 1}, so that a context of {self.max_length} "
                f"tokens has room for the prompt, got {new}"
            )
        drawn = bool(names["do_sample"])
        if drawn and "top_k" not in self.model.generation_config:
            names.setdefault("top_k", TOP_K)
        if names.get("max_length") is None:
            names["max_new_tokens"] = new
        names = acting({name: value for name, value in names.items() if name not in IGNORED})
        stops = [StopString(self.model.tokenizer, text.encode()) for text in until]
        # A text ends where what is new holds one of `until`: what the context ends with doesn't count.
        names["stopping_criteria"] = lambda _, ids: any(stop((), ids) for stop in stops)
        room = self.max_length - new
        prompts = {place: self.tok_encode(text)[-room:] or [self.prefix_token_id] for place, text in contexts.items()}
        ordered = sorted(prompts, key=lambda place: -len(prompts[place]))
        size = 1 if drawn else self.rows or ROWS
        for start in range(0, len(ordered), size):
            some = ordered[start : start + size]
            seed = {"seed": self.seed + some[0]} if drawn else {}
            write: Any = self.model.generate  # the options' names are a task's
            written = write([prompts[place] for place in some], generation_config=True, **names, **seed)
            for place, one in zip(some, written, strict=True):
                told(place, postprocess_generated_text(one.text, until, None))

    def _answered(
        self, kind: str, requests: list[Instance], work: Callable[[list[int], Told], None], silent: bool
    ) -> list[Any]:
        """The answers to all requests: those that are kept, and what `work` tells for the places of all others."""
        found: list[Any] = [None] * len(requests)
        kept = self.kept
        with contextlib.nullcontext() if kept is None else kept.opened():
            if kept is not None:
                found = [None if is_drawn(one) else kept.get(kind, one.args) for one in requests]
            places = [place for place, answer in enumerate(found) if answer is None]
            with tqdm(total=len(places), desc=kind, disable=True if silent else None) as bar:

                def told(place: int, answer: Any) -> None:
                    found[place] = answer
                    if not is_drawn(requests[place]):
                        self.cache_hook.add_partial(kind, requests[place].args, answer)
                        if kept is not None:
                            kept.put(kind, requests[place].args, answer)
                    bar.update()

                work(places, told)
        return found

    # ---- what the harness asks besides ------------------------------------------------------------------------------

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """``ValueError``: GPT-2 knows no chat format."""
        raise ValueError("GPT-2 is a base model, which knows no chat format: evaluate it without --apply_chat_template")

    @property
    def tokenizer_name(self) -> str:
        """The name that identifies the tokenizer: the model's folder."""
        return str(self.model.folder).replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return the information that the harness writes beside its results."""
        dtype = str(self.model.dtype) if self.model.origin is None else self.model.origin.dtype
        return {
            "model_num_parameters": sum(int(weight.size) for _, weight in flatten(self.model.params)),
            "model_dtype": dtype,
            "model_backend": self.model.backend,
        }
