"""A completions request in OpenAI's format: read, checked, and divided into jobs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from decoders import Options, methods
from decoders.base.errors import require
from decoders.options import DEFAULTS

from ..text import healing
from ..text.constraints import KINDS
from ..text.gpt2 import GPT2
from ..text.requests import Prompt, from_json, is_batch
from ..text.stopping import criteria, stop_strings
from .errors import Refused
from .jobs import Event, Job
from .limits import Limits

NEW_TOKENS = 16  # where max_tokens is absent: OpenAI's default
# OpenAI's names that differ from ours; either name is accepted, but not both.
OURS = {"max_tokens": "max_new_tokens", "n": "num_return_sequences", "logprobs": "top_logprobs", "stop": "stop_strings"}
# Options that only a program can give, and why a server refuses them.
NOT_HERE = {
    "suffix": "GPT-2 can't write towards a text that follows: leave suffix out",
    "messages": "these are base models, which continue a prompt and can't chat: give prompt instead of messages",
    "assistant_model": "assistant_model names files of the server's machine: leave it out",
    "output_scores": "output_scores are as many numbers a token as the vocabulary has: ask for logprobs instead",
    "constraint": "constraint is an object of a program: give regex, json_schema, choice or grammar",
    "stopping_criteria": "stopping_criteria are functions of a program: give stop",
    "prefix_allowed_tokens_fn": "prefix_allowed_tokens_fn is a function of a program: give regex, choice or grammar",
    "unconditional": "unconditional is a function of a program: give guidance_scale alone",
    "first_layers": "first_layers is a function of a program: give assistant_early_exit alone",
}
OF_THE_ANSWER = ("model", "stream", "stream_options", "echo", "user", "return_token_ids")


@dataclass(frozen=True)
class Completions:
    """A checked request: what is to be written after each prompt, and the form of the answer.

    ``prompts`` are the ids of each, ``shown`` those of them that the client gave (none of an empty prompt). ``stop``
    are the strings that a text is cut before, ``alternatives`` how many log-probabilities are told of each token.
    """

    prompts: list[list[int]]
    shown: list[list[int]]
    options: Options
    stop: tuple[str, ...]
    kept_stop: tuple[str, ...]
    echo: bool
    stream: bool
    usage: bool
    with_ids: bool
    writes: bool
    heals: bool
    alternatives: int | None

    def jobs(
        self, model: GPT2, limits: Limits, deliver: Callable[[int], Callable[[Event], None]], **more: Any
    ) -> list[Job]:
        """A job for each prompt; ``deliver(number)`` receives its events."""
        stopping = criteria(None, [*self.stop, *self.kept_stop], lambda: model.tokenizer)
        return [
            Job(
                ids,
                self.options,
                stopping,
                model.config.n_positions,
                deliver(number),
                limits.seconds,
                self.alternatives if self.echo else None,
                self.stream,
                self.writes,
                self.heals,
                **more,
            )
            for number, ids in enumerate(self.prompts)
        ]

    @property
    def copies(self) -> int:
        """How many texts are returned for each prompt."""
        return self.options.num_return_sequences


def read(
    body: Mapping[str, Any],
    model: GPT2,
    limits: Limits,
    compiles: Callable[[str, Any], None] = lambda kind, value: None,
) -> Completions:
    """Return the request in a JSON object. ``ValueError`` or `Refused`, in one line, for an invalid one.

    ``compiles(kind, value)`` tries a constraint out, and refuses one that takes too long.
    """
    names = {name: value for name, value in body.items() if value is not None}
    for name, why in NOT_HERE.items():
        if name in names:
            raise Refused(why, param=name)
    flags = {name: flag(names, name) for name in ("stream", "echo", "return_token_ids", "token_healing")}
    heals = healing.wanted(names, model.generation_config)
    settings = names.get("stream_options", {})
    require(isinstance(settings, dict), "stream_options must be an object", settings)
    prompts, shown_ids = prompt_ids(names.pop("prompt", ""), model, limits)
    for name in OF_THE_ANSWER:
        names.pop(name, None)
    wanted = renamed(names)
    stop = strings("stop", wanted.pop("stop", None), limits)
    kept = strings("stop_strings", wanted.pop("stop_strings", None), limits)
    alternatives = wanted.get("top_logprobs")
    writes = length(wanted, flags["echo"])
    how_to_choose(wanted)
    for kind in KINDS:
        if kind in wanted:
            require(
                size(wanted[kind]) <= limits.constraint,
                f"{kind} must have at most {limits.constraint} characters",
                size(wanted[kind]),
            )
            compiles(kind, wanted[kind])
    _, options = model.options(wanted, max(map(len, prompts)))
    asked = Completions(
        prompts,
        shown_ids,
        options,
        stop,
        kept,
        flags["echo"],
        flags["stream"],
        flag(settings, "include_usage"),
        flags["return_token_ids"],
        writes,
        heals,
        None if alternatives is None else options.top_logprobs,
    )
    check(asked, model, limits)
    return asked


def flag(names: Mapping[str, Any], name: str) -> bool:
    """Return a bool; False if it is absent."""
    value = names.get(name, False)
    require(isinstance(value, bool), f"{name} must be true or false", value)
    return bool(value)


def prompt_ids(given: Any, model: GPT2, limits: Limits) -> tuple[list[list[int]], list[list[int]]]:
    """Return the ids of each prompt as the model reads them, and as they were given."""
    several: list[Prompt] = list(given) if is_batch(given) else [given]
    require(len(several) <= limits.texts, f"prompt must hold at most {limits.texts} prompts", len(several))
    ids = [model.prompt_ids(one) for one in several]
    return ids, [found if len(one) else [] for one, found in zip(several, ids, strict=True)]


def renamed(names: dict[str, Any]) -> dict[str, Any]:
    """Translate OpenAI's names to ours, except ``stop``. ``ValueError`` if something is given twice."""
    for theirs, ours in OURS.items():
        if theirs in names and ours in names:
            raise Refused(f"{theirs} and {ours} say the same; give one of them", param=theirs)
        if theirs in names and theirs != "stop":
            value = names.pop(theirs)
            require(isinstance(value, int) and not isinstance(value, bool), f"{theirs} must be a whole number", value)
            names[ours] = value
    if names.get("num_return_sequences") == 1 and names.get("best_of") == 1:
        del names["best_of"]  # clients send it that want one text
    if "num_return_sequences" not in names and names.get("best_of") == 1:
        del names["best_of"]
    return from_json(names)


def strings(name: str, given: Any, limits: Limits) -> tuple[str, ...]:
    """Return the stop strings, after checking their number."""
    found = stop_strings(given)
    require(len(found) <= limits.stops, f"{name} must hold at most {limits.stops} texts", len(found))
    return found


def length(names: dict[str, Any], echo: bool) -> bool:
    """Return whether anything is to be written; fill in its length if that is absent."""
    if names.get("max_new_tokens") == 0:
        if not echo:
            raise Refused("max_tokens must be at least 1 without echo, got 0", param="max_tokens")
        names["max_new_tokens"] = 1
        return False
    if "max_length" not in names:
        names.setdefault("max_new_tokens", NEW_TOKENS)
    return True


def how_to_choose(names: dict[str, Any]) -> None:
    """Set greedy decoding, or sampling with a seed that is returned: OpenAI's ``temperature`` in our names.

    Absent, it is 1, which samples, unless a search is asked for that doesn't; 0 is greedy. ``do_sample`` goes before.
    """
    temperature = names.get("temperature")
    if temperature == 0 and not isinstance(temperature, bool):
        require(not names.get("do_sample"), "temperature must be above 0 where do_sample is true", temperature)
        names["do_sample"] = False
        del names["temperature"]
        if "top_p" in names:  # OpenAI's protocol has both, and clients send them together
            methods.option("top_p").check(names.pop("top_p"))
    if "do_sample" not in names:
        given = {name for name, value in names.items() if name in DEFAULTS and value != DEFAULTS[name]}
        searches = [one for one in methods.asked_for(frozenset(given)) if one.run is not None]
        names["do_sample"] = temperature is not None or all(one.with_profiles for one in searches)
    if names["do_sample"] is True:
        if "uniforms" not in names:
            names.setdefault("seed", secrets.randbelow(2**32))
    else:
        names.pop("seed", None)  # it says nothing here, but clients send it with everything


def size(value: Any) -> int:
    """Return how many characters a constraint has, in whatever form."""
    return len(value if isinstance(value, str) else json.dumps(value))


def check(asked: Completions, model: GPT2, limits: Limits) -> None:
    """Refuse a request that asks for more than the limits."""
    o = asked.options
    jobs = asked.jobs(model, limits, lambda number: lambda event: None)
    rows = sum(job.rows for job in jobs)
    require(
        rows <= limits.texts,
        f"a request must be for at most {limits.texts} texts (prompts times n, best_of or beams)",
        rows,
    )
    most = max(job.rows for job in jobs)
    require(most <= limits.rows, f"n, best_of and num_beams must be at most {limits.rows}", most)
    longest = max(o.most(len(job.ids)) for job in jobs) if asked.writes else 0
    require(longest <= limits.new_tokens, f"max_tokens must be at most {limits.new_tokens}", longest)
    require(o.top_logprobs <= limits.alternatives, f"logprobs must be at most {limits.alternatives}", o.top_logprobs)
    tokens = max(job.positions for job in jobs)
    require(tokens <= limits.tokens, f"prompt and new tokens of all texts must be at most {limits.tokens}", tokens)
    if asked.stream and o.best_of is not None and o.best_of > o.num_return_sequences:
        raise Refused("the best of several texts can't be streamed; leave best_of or stream out", param="best_of")
