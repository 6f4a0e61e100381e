"""Feature dashboards: where in a corpus each feature fires most, how often and how much, and the words it moves.

Bricken et al. 2023, "Towards Monosemanticity", and the pages of Neuronpedia. A corpus is read once and never kept: what
stays in memory is as large as the dashboards are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from decoders.base.ranking import highest

from ...display import NUMBERS, Readable, Texts, boxed, described
from ...session.model import Model
from ..capture import Captured
from ..neurons import Example, said
from ..neurons import places as places_of
from ..partial_runs import activations
from . import places
from .coding import Coder
from .effects import logit_effects
from .evaluation import batches
from .histograms import Histograms
from .splicing import check_feature

Array = np.ndarray


@dataclass(frozen=True, repr=False)
class Dashboard:
    """One feature. `examples` come strongest first, one a text; it fired at `density` of the corpus's `tokens`.

    `zeros` counts the tokens where it is 0, `histogram` its other values between `edges`: together they are `tokens`.
    `raises` and `lowers` are the ids whose logits it moves most, and `effects` by how much a unit of it does (but for
    the final norm's scale), first the raised ones'; empty where it has no direct effect.
    """

    feature: int
    tokens: int
    density: float
    examples: list[Example]
    zeros: int
    histogram: Array
    edges: Array
    raises: list[int]
    lowers: list[int]
    effects: list[float]
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        title = f"Feature {self.feature}: fires at {self.density:.2%} of {self.tokens:,} tokens"
        return boxed(*said(self.raises, self.lowers, self.texts), *places_of(self.examples, self.texts), title=title)


def dashboards(
    model: Model,
    dictionary: Coder,
    texts: Iterable[Sequence[int]] | Captured,
    features: Sequence[int] | None = None,
    *,
    examples: int = 8,
    context: int = 12,
    words: int = 10,
    exclude: Sequence[int] | None = None,
    batch: int = 8,
    progress: Callable[[int], object] | None = None,
) -> list[Dashboard]:
    """A dashboard for each feature (all of them unless given), from one pass over texts of ids, or over a capture that
    has what the dictionary reads: then the model isn't run.

    `context` is how many tokens are shown on either side; `words` how many are raised and lowered. Tokens in `exclude`
    (the model's end-of-text ids unless given) are shown but don't count. `progress` is told each batch's tokens.
    ``ValueError`` for a feature that isn't there, a corpus with no token that counts, and where the model has no place
    for the dictionary.
    """
    places.check(dictionary, model.config)
    for name, value in (("examples", examples), ("words", words), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    wanted = np.arange(dictionary.config.d_sae) if features is None else np.array(list(features), np.int64)
    for number in wanted:
        check_feature(int(number), dictionary.config.d_sae)
    left_out = np.array(model.config.eos_token_ids if exclude is None else list(exclude), np.int64)
    kept = Kept(len(wanted), examples, context)
    for ids, read in activations_of(model, dictionary, texts, batch):
        vectors = places.vectors(dictionary, read)
        found = dictionary.encode(vectors) if features is None else dictionary.encode_some(vectors, wanted)
        for row, of_row in zip(ids, found, strict=True):
            kept.add(row, of_row, ~np.isin(row, left_out))
        if progress is not None:
            progress(ids.size)
    if not kept.tokens:
        raise ValueError("dashboards need at least one token that counts, got none")
    made = [kept.dashboard(at, *moved) for at, moved in enumerate(moved_words(model, dictionary, wanted, words))]
    return [replace(one, texts=model.texts) for one in made]


def activations_of(
    model: Model, dictionary: Coder, texts: Iterable[Sequence[int]] | Captured, batch: int
) -> Iterator[tuple[Array, Array]]:
    """Yield (B, T) ids and the activations that a dictionary reads there, (B, T, …), from texts or from a capture."""
    name = places.reads(dictionary)
    if isinstance(texts, Captured):
        for number in range(len(texts)):
            yield texts.ids(number)[None], texts[number, name][None].astype(np.float32)
        return
    for ids in batches(texts, batch):
        yield ids, activations(model, ids, [name])[name]


class Kept(Readable):
    """The part of a corpus that is kept: for each of n features its best places, with their context, and its
    histogram.
    """

    def __init__(self, features: int, examples: int, context: int) -> None:
        self.context, self.texts, self.tokens = context, 0, 0
        self.best: list[list[Example]] = [[] for _ in range(features)]
        self.least = np.zeros(features)  # the value that a place must exceed to be among the best
        self.examples = examples
        self.histograms = Histograms(features)

    def add(self, ids: Array, features: Array, counts: Array) -> None:
        """Add one text: (T,) ids, (T, n) features, and which of its tokens count."""
        self.tokens += int(counts.sum())
        self.histograms.add(features[counts])
        sizes = np.abs(features) * counts[:, None]
        peaks = sizes.argmax(axis=0)
        tops = sizes[peaks, np.arange(len(peaks))]
        for at in np.flatnonzero(tops > self.least):
            some = self.best[at]
            some.append(self.example(ids, features[:, at], int(peaks[at])))
            some.sort(key=lambda one: -abs(one.value))  # stable: of equal ones the first text stays
            del some[self.examples :]
            if len(some) == self.examples:
                self.least[at] = abs(some[-1].value)
        self.texts += 1

    def example(self, ids: Array, values: Array, position: int) -> Example:
        """Return a place with its context."""
        start, end = max(0, position - self.context), position + self.context + 1
        around = [float(value) for value in values[start:end]]
        return Example(float(values[position]), self.texts, position, start, ids[start:end].tolist(), around)

    def dashboard(self, at: int, feature: int, raises: list[int], lowers: list[int], effects: list[float]) -> Dashboard:
        """Return the dashboard of one feature."""
        zeros = int(self.histograms.zeros[at])
        return Dashboard(
            feature=feature,
            tokens=self.tokens,
            density=1 - zeros / self.tokens,
            examples=self.best[at],
            zeros=zeros,
            histogram=self.histograms.counts[at],
            edges=self.histograms.edges(at),
            raises=raises,
            lowers=lowers,
            effects=effects,
        )


def moved_words(
    model: Model, dictionary: Coder, features: Array, words: int
) -> list[tuple[int, list[int], list[int], list[float]]]:
    """Return for each feature its number, the ids that it raises and lowers most, and by how much."""
    found: list[tuple[int, list[int], list[int], list[float]]] = []
    for start in range(0, len(features), 256):  # (256, V) logits at a time
        some = features[start : start + 256]
        try:
            effects = logit_effects(model, dictionary, some)
        except ValueError:  # an activation that isn't added to the stream
            found += [(int(feature), [], [], []) for feature in some]
            continue
        count = min(words, effects.shape[1])
        for feature, row in zip(some.tolist(), effects, strict=True):
            up, down = highest(row, count), highest(-row, count)
            found.append((feature, up.tolist(), down.tolist(), [float(row[one]) for one in [*up, *down]]))
    return found
