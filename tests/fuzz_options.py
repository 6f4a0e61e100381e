"""Sets of options by the thousand: each must write sound text, or be refused in one line that names one of them.

``pytest -m fuzz -n 0`` draws 20,000; ``python tests/fuzz_options.py FIRST COUNT`` as many as you like, and prints the
refusals by kind. A set is drawn anew from its number alone: ``python tests/fuzz_options.py 17 1`` repeats one. What is
drawn comes from the methods' statements, so that a new option joins by itself.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from limits import Hang, limits
from option_strategies import SAMPLERS, beside

from decoders import Completion, Options, generate, methods
from decoders.base.method import Interval, Option
from decoders.base.value_types import flat, pairs

if TYPE_CHECKING:
    from gpt2_np import GPT2

CPU_SECONDS, SECONDS = 6.0, 120.0  # that one set may take
V, EOS, CONTEXT = 12, 3, 24
EXTREMES: list[Any] = [0, 1, -1, 2, 0.0, 1.0, -0.5, 1e-45, 1e-38, 1e-100, 5e-324, 1e30, 1e38, -1e38, 1e39, 1e308, 200.0]
EXTREMES += [float("inf"), -float("inf"), float("nan"), 2**31, -(2**31), 2**53, 2**63, -(2**63), 2**64, 10**20, 10**400]
ODD: list[Any] = [
    "x",
    "",
    b"x",
    True,
    None,
    [],
    [1],
    (1, 2),
    [[1, 2]],
    [[]],
    [-1],
    [True],
    [1.5],
    [["a"]],
    {},
    {"a": 1},
]
ODD += [{1: float("nan")}, {"x": 2.0}, [([1], "a")], np.float32(0.5), np.int64(2), np.array([1, 2]), np.array([[1.5]])]
ODD += [object(), 1 + 2j, {1}, [V], [V - 1, -1], {V: 1.0}, {-1: 1.0}, {(V,): 1.0}, [([V], 1.0)], range(3), np.array(3)]
# What a function of the caller's may answer where ids are asked for, or a yes or no.
ANSWERS: list[Any] = [[-1], [V], [True], [1.5], ["a"], "ab", None, 3, [], np.array([]), np.array([1.5]), [[1]], {1: 2}]
ANSWERS += [np.array([0, V]), range(V + 1), [0, 2**70], np.array([True, False]), {2, 5}, np.array([2, 5]), (0, 1)]
NOT_BOOL: list[Any] = [None, 1, "yes", [], np.array([True, False]), 0.5]
FEW = ("num_return_sequences", "best_of")  # many of them are sound, and slow


class Table:
    """A stepper that is everything a search may want; its logits depend on the last id alone."""

    n_layer, tied = 4, True

    def __init__(self, seed: int = 0) -> None:
        dice = np.random.default_rng(seed)
        self.tables = (dice.standard_normal((self.n_layer + 1, V, V)) * 3).astype(np.float32)
        self.states = dice.standard_normal((V, 6)).astype(np.float32)

    def feed(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        return self.tables[-1, [row[-1] for row in ids]]

    def feed_all(self, ids: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [self.tables[-1, list(row)] for row in ids]

    def feed_hidden(self, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, list[np.ndarray]]:
        return self.feed(ids), [self.states[list(row)] for row in ids]

    def feed_layers(self, ids: Sequence[Sequence[int]], layers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        return self.feed(ids), self.tables[list(layers)][:, [row[-1] for row in ids]]

    def reorder(self, rows: Sequence[int]) -> None:
        pass

    def rewind(self, counts: Sequence[int]) -> None:
        pass


class Automaton:
    """Even ids, and an end after any two of them; or an answer that is none."""

    def __init__(self, wrong: Any = None) -> None:
        self.wrong = wrong

    def following(self, new: Sequence[int]) -> Any:
        if self.wrong is not None:
            return self.wrong
        sound = all(token % 2 == 0 for token in new)
        return (np.arange(V) % 2 == 0) & sound, sound and len(new) >= 2


WRONG: list[Any] = [3, (np.ones(V - 1, bool), True), (np.ones(V), True), (np.ones(V, bool), "yes"), ([True] * V, True)]
WRONG += [(np.ones((1, V), bool), False), np.ones(V, bool), (np.ones(V + 3, bool), False), (None, True)]


# ---- what is drawn -------------------------------------------------------------------------------------------------


def options_of(number: int) -> dict[str, Any]:
    """The options of one set."""
    dice = random.Random(number)
    names: dict[str, Any] = {}
    for name in dice.sample(list(methods.OPTIONS), dice.choice([1, 1, 2, 2, 3, 5])):
        if dice.random() < 0.7:
            names |= {one: of_callers(one, dice, value) for one, value in beside(name).items()}
        names[name] = value_of(methods.option(name), dice)
    if dice.random() < 0.5:
        names["do_sample"] = True
    if "do_sample" in names and dice.random() < 0.8:
        names.setdefault("seed", dice.randrange(100))
    if dice.random() < 0.1:
        names["stopping_criteria"] = answering(dice, [True, False, np.bool_(False), *NOT_BOOL])
    if dice.random() < 0.3:
        names["eos_token_id"] = dice.choice([EOS, [EOS, 5], EOS])
    names.setdefault("max_new_tokens", dice.randint(1, 6)) if dice.random() < 0.8 else None
    if isinstance(names.get("assistant_model"), str):
        names["assistant_model"] = 5  # a text names a model, which would be looked for
    if names.get("exhaustive") is True:
        names["max_new_tokens"] = dice.randint(1, 3)
    return names


def of_callers(name: str, dice: random.Random, value: Any = None) -> Any:
    """What only a caller can give, here often wrong; any other value as it is."""
    if name == "prefix_allowed_tokens_fn":
        return answering(dice, [[0, 1, 2, 3, 4, 5], [0, EOS], *ANSWERS])
    if name == "constraint":
        return Automaton(dice.choice(WRONG) if dice.random() < 0.4 else None)
    if name in ("unconditional", "assistant_model"):
        return lambda: Table(1)
    if name == "first_layers":
        return lambda layers: Table(1)
    return value


def answering(dice: random.Random, answers: Sequence[Any]) -> Callable[..., Any]:
    """A function that always gives one of these answers."""
    answer = dice.choice(list(answers)[:2]) if dice.random() < 0.5 else dice.choice(list(answers))
    return lambda *_: answer


def value_of(option: Option, dice: random.Random) -> Any:
    """A value for an option: mostly a sound one, else one at the edge, or of another kind."""
    kind, chance = option.kind.name, dice.random()
    if chance > 0.9:
        return dice.choice(ODD)
    if chance > 0.65 and kind in ("whole", "number"):
        value = dice.choice([*EXTREMES, *option.off, option.otherwise, *option.choices])
        return dice.randint(1, 5) if option.name in FEW and 9 < (value or 0) < 2**17 else value
    if chance > 0.7 and kind in ("logit bias", "sequence bias"):
        extreme = dice.choice(EXTREMES)
        return {dice.randrange(V): extreme} if kind == "logit bias" else {(dice.randrange(V),): extreme}
    if chance > 0.7 and kind == "decay":
        return dice.choice(EXTREMES), dice.choice(EXTREMES)
    return sound(option, dice)


def sound(option: Option, dice: random.Random) -> Any:
    """A value that an option takes."""
    if option.choices:
        return dice.choice(option.choices)
    own = of_callers(option.name, dice)
    if own is not None:
        return own
    if option.kind.name == "whole":
        low = int(Interval.parse(option.interval).low) if option.interval else 0
        return low + dice.choice([0, 1, 2, 3, 5])
    if option.kind.name == "number":
        return number_in(Interval.parse(option.interval or "(-inf, inf)"), dice)
    return OF_KIND[option.kind.name](dice)


def number_in(interval: Interval, dice: random.Random) -> float:
    """A number in a range, now and then next to its ends."""
    low = interval.low if interval.low > -np.inf else -4.0
    high = interval.high if interval.high < np.inf else max(low, 0.0) + 4.0
    value = dice.choice([low, high, np.nextafter(low, high), np.nextafter(high, low), *[dice.uniform(low, high)] * 6])
    return float(value) if interval.holds(value) else (low + high) / 2


def some(dice: random.Random, most: int = 3) -> list[int]:
    return [dice.randrange(V) for _ in range(dice.randint(1, most))]


OF_KIND: dict[str, Callable[[random.Random], Any]] = {
    "flag": lambda dice: dice.random() < 0.7,
    "id": lambda dice: dice.randrange(V),
    "ids": lambda dice: some(dice, 8),
    "id or ids": lambda dice: dice.choice([dice.randrange(V), some(dice)]),
    "numbers": lambda dice: [dice.choice([0.0, 0.5, dice.random()]) for _ in range(dice.choice([1, 8, 60]))],
    "name": lambda dice: "constant",
    "callable": lambda dice: None,
    "names": lambda dice: dice.sample(SAMPLERS, len(SAMPLERS)),
    "profile": lambda dice: dice.choice(list(methods.PROFILES)),
    "phrases": lambda dice: [some(dice, 2) for _ in range(dice.randint(1, 3))],
    "prompts": lambda dice: some(dice, 4),
    "words": lambda dice: [some(dice, 2) for _ in range(dice.randint(1, 2))],
    "layers": lambda dice: dice.choice(["low", "high", [0], [0, 2], [3]]),
    "anything": lambda dice: None,
    "early": lambda dice: dice.choice([True, False, "never"]),
    "logit bias": lambda dice: {token: dice.choice([2.0, -2.0, -np.inf]) for token in some(dice, 5)},
    "sequence bias": lambda dice: [(some(dice, 2), dice.choice([2.0, -2.0, -np.inf]))],
    "decay": lambda dice: (dice.randint(0, 3), dice.choice([1.5, 0.5, 1e30])),
    "watermarking": lambda dice: dice.choice(
        [
            {},
            {"bias": dice.choice([2.0, 1e39, "x", None])},
            {"seeding_scheme": "selfhash", "context_width": dice.choice([1, 2, 0, 1.5])},
            {"ngram_len": dice.choice([2, 3, 1, "x"]), "keys": dice.choice([[5, 6, 7], [], 5, ["a"], [2**64]])},
            {"hashing_key": dice.choice([15485863, 2**70, -5, "x"])},
            {"greenlist_ratio": dice.choice([0.5, 0, "x"])},
            {"colour": "green"},
        ]
    ),
}


# ---- what is asked of it -------------------------------------------------------------------------------------------


def write(names: dict[str, Any], model: GPT2 | None) -> list[str]:
    """The faults of the texts that these options give; ``ValueError`` where they are refused."""
    if model is not None:
        written = model.generate([[1, 2], [0, 1, 0, 1]], **names)
        _, options = model.options({name: value for name, value in names.items() if name != "stopping_criteria"})
        return faults(written, options, model.config.vocab_size, model.config.n_positions, (2, 4))
    given = dict(names)
    stop = given.pop("stopping_criteria", None)
    options = Options.from_names(given)
    prompts = [[1, 2], [0, 1, 0, 1]]
    stopping = [stop] if stop is not None else []
    trace: list[Any] | None = [] if len(names) % 3 == 0 else None
    completions = generate(Table(), prompts, options, context=CONTEXT, stopping=stopping, trace=trace)
    return faults(completions, options, V, CONTEXT, (2, 4))


def faults(written: Sequence[Any], o: Options, vocabulary: int, context: int, lengths: Sequence[int]) -> list[str]:
    """What is wrong with the completions of two prompts of these lengths."""
    if len(written) != o.num_return_sequences * len(lengths):
        return [f"{len(written)} texts"]
    found = []
    for number, one in enumerate(written):
        length = lengths[number // o.num_return_sequences]
        found += fault(one, o, vocabulary, min(o.most(length), context - length + 1))
    return found


def fault(one: Completion, o: Options, vocabulary: int, room: int) -> Iterator[str]:
    """What is wrong with one completion."""
    if not 1 <= len(one.ids) <= room or len(one.logprobs) != len(one.ids):
        yield f"{len(one.ids)} ids, {len(one.logprobs)} log-probabilities, room for {room}"
    if not all(type(token) is int and 0 <= token < vocabulary for token in one.ids):
        yield f"ids outside the vocabulary: {one.ids}"
    if not all(-np.inf < value < 1e-4 for value in one.logprobs):
        yield f"log-probabilities {one.logprobs}"
    if one.score is not None and not np.isfinite(one.score):
        yield f"score {one.score}"
    if any(np.isnan(scores).any() or not scores.max() < np.inf for scores in one.scores):
        yield "scores that are no numbers"
    ends = [place for place, token in enumerate(one.ids) if token in o.eos_token_ids]
    if ends and (ends[0] < len(one.ids) - 1 or one.finish_reason != "stop"):
        yield f"an end-of-text within the text: {one.ids}, {one.finish_reason}"
    forced = {o.forced_bos_token_id, *flat([o.forced_eos_token_id])} - {None}
    revived = o.prefix_allowed_tokens_fn is not None
    for name, never in forbidden(o):
        seen = (set(one.ids) & never) - forced
        if seen and not (revived and name != "suppress_tokens"):
            yield f"{name} forbids {seen}: {one.ids}"


def forbidden(o: Options) -> Iterator[tuple[str, set[int]]]:
    """(the option, ids that it forbids)."""
    eos = set(o.eos_token_ids)
    yield "suppress_tokens", set(o.suppress_tokens or ())
    yield "bad_words_ids", {word[0] for word in o.bad_words_ids or () if len(word) == 1} - eos
    single = {token for token, bias in (o.logit_bias or {}).items() if bias == -np.inf}
    yield "logit_bias", single
    yield "sequence_bias", {s[0] for s, bias in pairs(o.sequence_bias or {}) if len(s) == 1 and bias == -np.inf}


def one(number: int, model: GPT2 | None) -> tuple[str, list[str]]:
    """(the refusal, the faults found) of the set that a number draws; nothing is refused by an empty text."""
    names = options_of(number)
    refused, found = "", []
    try:
        with warnings.catch_warnings(), limits(CPU_SECONDS, SECONDS):
            warnings.simplefilter("error")
            found = write(names, model if number % 20 == 0 else None)
    except (ValueError, OSError) as error:
        refused = str(error)
        settings = [key for value in names.values() if isinstance(value, dict) for key in value]
        named = any(str(name) in refused for name in [*names, *settings]) or "holds no tokenizer" in refused
        if not refused or "\n" in refused or len(refused) > 4000 or not named:
            found = [f"not one line that names an option: {refused[:500]!r}\n{traceback.format_exc()[-700:]}"]
    except Hang:
        found = ["it hangs"]
    except BaseException as error:
        found = [traceback.format_exc()[-1500:] if not isinstance(error, KeyboardInterrupt) else "interrupted"]
    return refused, [f"set {number}, {names}: {fault}" for fault in found]


def run(first: int, count: int, model: GPT2 | None) -> tuple[list[str], Counter[str]]:
    """(all faults, refusals by kind) of `count` sets from number `first` on; every 20th is for `model`, if any."""
    faults: list[str] = []
    kinds: Counter[str] = Counter()
    for number in range(first, first + count):
        refused, found = one(number, model)
        faults += found
        kinds["sound" if not refused else re.sub(r"got .*|[\d'\"]+", "#", refused)[:70]] += 1
    return faults, kinds


if __name__ == "__main__":
    from reference import reference_model, save

    from gpt2_np import GPT2

    with tempfile.TemporaryDirectory() as place:
        small = GPT2.from_pretrained(save(reference_model(), Path(place)), backend="numpy")
        found, by_kind = run(int(sys.argv[1]), int(sys.argv[2]), small)
    for kind, times in by_kind.most_common(40):
        print(f"{times:>6}  {kind}")
    print(
        f"{sum(by_kind.values())} sets, {len(by_kind)} kinds of outcome, {by_kind['sound']} sound, {len(found)} faults"
    )
    print("\n".join(found[:12]))
