"""Tasks with a known right answer, as pairs of prompts that differ in what decides it; circuits are searched on them.

`indirect_object` is the task of Wang et al. 2022, "Interpretability in the Wild", with templates of our own: two
people, of whom one comes again, gives something to the other. `possessives` is one of the same kind that small models
of tales can do: two people, of whom one comes again and loses something of his or of hers. Both are drawn by a seed,
from words that are one token each for the tokenizer given, so that a clean prompt and its corrupted one have equally
many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..display import described
from ..gradients.metrics import LogitDifference, logit_difference
from ..model.ops import log_softmax
from ..session.model import Model

Array = np.ndarray
ORDERS = ("ABB", "BAB")
CORRUPTIONS = ("names", "swap")

NAMES = """
Adam Alan Alex Alice Amy Andrew Andy Anna Anne Arthur Ben Bill Bob Brian Carl Carol Charles Charlie Chris Claire Dan
Daniel David Dick Ed Edward Emily Emma Eric Eve Frank Fred Gary George Grace Hans Harry Helen Henry Ian Jack Jake James
Jane Jason Jay Jean Jeff Jim Joe John Jon Joseph Josh Karen Kate Keith Kevin Kim Laura Lee Leon Lily Lisa Louis Lucy
Luke Marie Mark Martin Mary Matt Max Michael Mike Nick Oliver Patrick Paul Peter Philip Rachel Ray Richard Robert Roger
Rose Ruth Ryan Sam Sarah Scott Sean Simon Stephen Steve Sue Susan Thomas Tim Tom Tony Victor William
""".split()
PLACES = (
    "castle church city forest garden hill house market mountain palace park river school shop sea town village".split()
)
OBJECTS = (
    "apple ball basket bell book bottle box bread cake cloak coat crown cup flower key knife letter ring stone".split()
)
IOI_TEMPLATES = (
    "When {first} and {second} came to the {place}, {again} handed the {thing} to",
    "While {first} and {second} were busy in the {place}, {again} showed the {thing} to",
    "After {first} and {second} had left the {place}, {again} sent the {thing} to",
    "Then {first} and {second} talked about the {place}, and {again} gave the {thing} to",
    "One day {first} and {second} met near the {place}. There {again} sold the {thing} to",
)

HE = "king prince boy father son brother husband man lord".split()
SHE = "queen princess girl mother daughter sister wife woman lady".split()
POSSESSIVE_TEMPLATES = (
    "The {first} and the {second} went into the wood. There the {again} lost",
    "Once the {first} and the {second} lived in a house. One day the {again} lost",
    "When the {first} and the {second} came home, the {again} took off",
)


class Example(NamedTuple):
    """One pair: the right next token of `clean` is `answer`, not `wrong`. `form` names its template and order."""

    clean: str
    corrupted: str
    answer: str
    wrong: str
    form: str


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Pairs of one length as ids: ``clean`` and ``corrupted`` (n, T), ``answers`` and ``wrong`` (n,), ``forms``."""

    clean: Array
    corrupted: Array
    answers: Array
    wrong: Array
    forms: list[str]

    def __repr__(self) -> str:
        return described(self)

    @property
    def metric(self) -> LogitDifference:
        """Return by how much the right answer's logit exceeds the wrong one's after the last token, one number for each
        pair.
        """
        return logit_difference(self.answers, self.wrong)


def indirect_object(
    encode: Callable[[str], Sequence[int]],
    count: int = 100,
    *,
    seed: int = 0,
    order: str | None = None,
    corruption: str = "names",
) -> list[Example]:
    """Pairs of the indirect-object task. `encode` gives a text's ids, without special tokens.

    `order` "ABB" names the indirect object first, "BAB" the one who comes again; None takes turns. `corruption` "names"
    puts three other people in place of the two, none of whom comes twice (Wang et al.'s ABC), so that nothing says who
    gets it; "swap" lets the other one come again, so that the right answer is the wrong one. ``ValueError`` for options
    that aren't these, and for a tokenizer to which too few names are one token.
    """
    _check(count, order, corruption)
    names = one_token(encode, NAMES, 5, "names")
    places, things = one_token(encode, PLACES, 1, "places"), one_token(encode, OBJECTS, 1, "objects")
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        kind = order or ORDERS[number % 2]
        template = int(random.integers(len(IOI_TEMPLATES)))
        place, thing = str(random.choice(places)), str(random.choice(things))
        io, s, *others = (str(name) for name in random.choice(names, 5, replace=False))
        fill = IOI_TEMPLATES[template].format
        first, second = (io, s) if kind == "ABB" else (s, io)
        clean = fill(first=first, second=second, again=s, place=place, thing=thing)
        if corruption == "swap":
            corrupted = fill(first=first, second=second, again=io, place=place, thing=thing)
        else:
            corrupted = fill(first=others[0], second=others[1], again=others[2], place=place, thing=thing)
        found.append(Example(clean, corrupted, f" {io}", f" {s}", f"{template} {kind}"))
    return found


def possessives(
    encode: Callable[[str], Sequence[int]],
    count: int = 100,
    *,
    seed: int = 0,
    order: str | None = None,
    corruption: str = "swap",
) -> list[Example]:
    """Pairs of the possessive task: a man and a woman, one of whom comes again, and " his" or " her" what was lost.

    `order` "ABB" lets the second of them come again, "BAB" the first; None takes turns. `corruption` "swap" lets the
    other one come again, so that the right answer is the wrong one; "names" puts two others of the same sexes in their
    places, each in the other's, which turns it as well. ``ValueError`` as for `indirect_object`.
    """
    _check(count, order, corruption)
    he, she = one_token(encode, HE, 2, "men"), one_token(encode, SHE, 2, "women")
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        kind = order or ORDERS[number % 2]
        template, is_she = int(random.integers(len(POSSESSIVE_TEMPLATES))), bool(random.integers(2))
        (man, other_man), (woman, other_woman) = (random.choice(words, 2, replace=False) for words in (he, she))
        again, rest = (woman, man) if is_she else (man, woman)
        fill = POSSESSIVE_TEMPLATES[template].format
        first, second = (rest, again) if kind == "ABB" else (again, rest)
        clean = fill(first=first, second=second, again=again)
        if corruption == "swap":
            corrupted = fill(first=first, second=second, again=rest)
        else:
            new_again, new_rest = (other_man, other_woman) if is_she else (other_woman, other_man)
            first, second = (new_rest, new_again) if kind == "ABB" else (new_again, new_rest)
            corrupted = fill(first=first, second=second, again=new_again)
        answer, wrong = (" her", " his") if is_she else (" his", " her")
        found.append(Example(clean, corrupted, answer, wrong, f"{template} {kind}"))
    return found


TASKS: Mapping[str, Callable[..., list[Example]]] = {"indirect-object": indirect_object, "possessives": possessives}


def one_token(encode: Callable[[str], Sequence[int]], words: Sequence[str], least: int, what: str) -> list[str]:
    """The words that are one token after a blank. ``ValueError`` where fewer than `least` are."""
    found = [word for word in words if len(encode(f" {word}")) == 1]
    if len(found) < least:
        raise ValueError(f"the task needs {least} {what} that are one token, and this tokenizer has {len(found)}")
    return found


def batches(model: Any, examples: Sequence[Example], *, prepend_bos: bool = False) -> list[Batch]:
    """Pairs as ids, those of one length together, in the order in which lengths first come.

    With `prepend_bos` each prompt begins with the id that an empty one starts from. ``ValueError`` for a pair of
    unequal lengths, naming both, and for an answer that isn't one token.
    """
    start = [int(model.prompt_ids("")[0])] if prepend_bos else []
    by_length: dict[int, list[tuple[list[int], list[int], int, int, str]]] = {}
    for one in examples:
        clean, corrupted = ([*start, *model.tokenizer.encode(text)] for text in (one.clean, one.corrupted))
        if len(clean) != len(corrupted):
            raise ValueError(
                f"a pair must have equally many tokens, got {len(clean)} for {one.clean!r} and {len(corrupted)} "
                f"for {one.corrupted!r}"
            )
        answers = []
        for text in (one.answer, one.wrong):
            ids = model.tokenizer.encode(text, add_special_tokens=False)
            if len(ids) != 1:
                raise ValueError(f"an answer must be one token, got {text!r}, which is {len(ids)}")
            answers.append(ids[0])
        by_length.setdefault(len(clean), []).append((clean, corrupted, *answers, one.form))
    found = []
    for rows in by_length.values():
        cleans, corrupteds, rights, wrongs, forms = zip(*rows, strict=True)
        found.append(Batch(np.array(cleans), np.array(corrupteds), np.array(rights), np.array(wrongs), list(forms)))
    return found


class Measured(NamedTuple):
    """The quality of a model on a task: means over ``pairs`` pairs; ``spread`` is the standard deviation of
    ``difference``.
    """

    difference: float
    spread: float
    probability: float
    accuracy: float
    pairs: int


def measure(model: Model, pairs: Sequence[Batch], *, corrupted: bool = False) -> dict[str, Measured]:
    """Measure how well a model does a task, over "all" pairs and each form: for the clean prompts, or for the corrupted
    ones.

    ``difference`` is the right answer's logit less the wrong one's, ``probability`` the right answer's among all
    tokens, ``accuracy`` the share of pairs in which the difference is positive.
    """
    rows: list[tuple[str, float, float]] = []
    for batch in pairs:
        last = model(batch.corrupted if corrupted else batch.clean)[:, -1]
        each = np.arange(len(last))
        chances = np.exp(log_softmax(last))[each, batch.answers]
        differences = last[each, batch.answers] - last[each, batch.wrong]
        rows += zip(batch.forms, differences.tolist(), chances.tolist(), strict=True)
    if not rows:
        raise ValueError("there is nothing to measure: give at least one pair")
    forms = sorted({form for form, _, _ in rows})
    return {name: _mean_measures([row for row in rows if name in ("all", row[0])]) for name in ("all", *forms)}


def _mean_measures(rows: Sequence[tuple[str, float, float]]) -> Measured:
    differences, chances = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    accuracy = float((differences > 0).mean())
    return Measured(float(differences.mean()), float(differences.std()), float(chances.mean()), accuracy, len(rows))


def _check(count: int, order: str | None, corruption: str) -> None:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if order is not None and order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(CORRUPTIONS)}, got {corruption!r}")
