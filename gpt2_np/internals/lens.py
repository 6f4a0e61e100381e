"""The logit lens and the tuned lens: what the model would predict if it stopped after each layer.

The logit lens: nostalgebraist 2020, "interpreting GPT: the logit lens". The tuned lens: Belrose et al. 2023, "Eliciting
Latent Predictions from Transformers with the Tuned Lens", here trained by least squares in place of gradient descent:
one pass over a corpus, one solve a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..display import MOST_COLUMNS, MOST_ROWS, NUMBERS, Readable, Texts, described, heat, visible
from ..engine.threaded import each
from ..model import ops
from ..model.activations import ActivationCache
from ..model.ops import log_softmax
from ..session.model import Model
from ..system.files import write_whole
from ..weights.load import floats
from .logits import ROWS, Divergence, likeliest, some_logits
from .partial_runs import activations

Array = np.ndarray
FEWEST = 10  # positions for each of a stream's dimensions: an affine map has as many unknowns for each output
LARGEST_RIDGE = 1e12  # a share of the variance: far below it, only the logit lens is left


@dataclass(frozen=True, repr=False)
class Lens:
    """The predictions of each layer: `logits` (C, T, V) for the C streams in `labels`, at the T positions of `ids`.

    `texts` gives ids as texts, for the table that a notebook shows. ``ValueError`` for logits that are no numbers.
    """

    ids: Array
    labels: list[str]
    logits: Array
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (np.isnan(self.logits) | (self.logits == np.inf)).any():
            raise ValueError(f"what the lens reads overflows {self.logits.dtype}: its logits are no numbers")

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return lens_table(self)

    @property
    def log_probabilities(self) -> Array:
        """(C, T, V), nats, float64."""
        return log_softmax(self.logits)

    def top(self, count: int = 1) -> tuple[Array, Array]:
        """The likeliest next ids of each stream and position, and their probabilities: two (C, T, count)."""
        return likeliest(self.logits, count)

    def divergence(self) -> Array:
        """Return the divergence of each stream's prediction from the last one's: KL(last ‖ stream) in nats, (C, T)."""
        from_last, rows = Divergence(self.logits[-1]), np.arange(self.logits.shape[1])
        return np.stack([from_last(stream, rows) for stream in self.logits])


def nearest(model: Model, cache: ActivationCache, count: int) -> tuple[list[str], Array, Array]:
    """The logit lens' likeliest ids alone, of one captured prompt: labels, ids and probabilities, (C, T, count) each.

    ``cache`` holds the streams that `stream_names` tells. As `logit_lens`'s `Lens.top`, in the memory of `ROWS` logits.
    """
    streams, labels = cache.accumulated_resid(pos_slice=None)
    rows = streams.reshape(-1, streams.shape[-1])
    found = [likeliest(logits, count) for logits in some_logits(model, rows, ROWS)]
    shape = (len(labels), streams.shape[2], -1)
    best, chances = (np.concatenate(part).reshape(shape) for part in zip(*found, strict=True))
    return labels, best, chances


def logit_lens(model: Model, ids: str | Sequence[int] | Array, *, prepend_bos: bool = False) -> Lens:
    """Each layer's stream through the final norm and the unembedding, for one prompt, a text or (T,) ids.

    The last is the output.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.internals.lens import logit_lens
        >>> tokens, probabilities = logit_lens(model, "The king and the").top(3)
        >>> tokens.shape
        (9, 4, 3)
    """
    return _lens(model, model.to_ids(ids, prepend_bos=prepend_bos), lambda streams: streams)


def _lens(model: Model, ids: Sequence[int] | Array, translate: Callable[[Array], Array]) -> Lens:
    row = model.check_ids(ids)
    if len(row) != 1:
        raise ValueError(f"a lens looks at one prompt, got {len(row)} rows")
    _, cache = model.run_with_cache(row, stream_names(model))
    streams, labels = cache.accumulated_resid(pos_slice=None)
    normed = ops.layer_norm(translate(streams[:, 0]), *model.params.ln_f, model.config.layer_norm_epsilon)
    return Lens(row[0], labels, ops.unembed(normed, model.params.lm_head), model.texts)


def divergences(model: Model, ids: Sequence[int] | Array, lens: TunedLens) -> tuple[list[str], Array, Array]:
    """Return labels, and `Lens.divergence` of the logit lens and of a tuned one, (C, T) each, of one run.

    In the memory of the last stream's logits twice, and of `ROWS` others.
    """
    names = stream_names(model)
    found = activations(model, np.atleast_2d(ids), names)
    streams = np.stack([found[name][0] for name in names])
    T, D = streams.shape[1:]
    from_last = Divergence(next(some_logits(model, streams[-1], T)))
    rows = np.concatenate([looked[:-1] for looked in (streams, lens.translated(streams))]).reshape(-1, D)
    places = np.arange(len(rows)) % T
    starts = range(0, len(rows), ROWS)
    made = zip(starts, some_logits(model, rows, ROWS), strict=True)
    each = [from_last(logits, places[start : start + ROWS]) for start, logits in made]
    both = np.zeros((2, len(names), T))  # the last stream is no distance from itself
    both[:, :-1] = np.concatenate(each).reshape(2, -1, T)
    labels = [*(f"{layer}_pre" for layer in range(model.config.n_layer)), "final_post"]
    return labels, both[0], both[1]


def lens_table(looked: Lens, title: str = "What each stream would say next") -> str:
    """Show the likeliest next token of each stream and position, tinted by its probability, the last stream on top."""
    best, chances = likeliest(looked.logits[-MOST_ROWS:, :MOST_COLUMNS], 5)
    words = [[[visible(word) for word in looked.texts(ids)] for ids in row] for row in best[::-1]]
    chances, labels = chances[::-1], looked.labels[::-1]
    columns = looked.texts(looked.ids)
    hints = [
        [
            f"{labels[row]} after {visible(columns[at])}: "
            + ", ".join(f"{word} {p:.1%}" for word, p in zip(words[row][at], chances[row, at], strict=True))
            for at in range(len(words[row]))
        ]
        for row in range(len(words))
    ]
    return heat(
        chances[:, :, 0],
        rows=labels,
        columns=columns[: len(words[0])],
        corner="after reading",
        title=title,
        legend="probability of the likeliest token, which is written in the cell (hover for the next four)",
        texts=[[one[0] for one in row] for row in words],
        hints=hints,
        most=1.0,
    )


def stream_names(model: Model) -> list[str]:
    """Return the activations that a lens reads: the streams before each layer, and the last one."""
    L = model.config.n_layer
    return [*(f"blocks.{layer}.resid_pre" for layer in range(L)), f"blocks.{L - 1}.resid_post"]


@dataclass(frozen=True, repr=False)
class TunedLens:
    """An affine map from the stream before each layer to the last one: `weight` (L, D, D), `bias` (L, D)."""

    weight: Array
    bias: Array

    def __repr__(self) -> str:
        return described(self)

    def __call__(self, model: Model, ids: str | Sequence[int] | Array, *, prepend_bos: bool = False) -> Lens:
        """Each layer's stream, translated, through the final norm and the unembedding. The last is the output."""
        if self.weight.shape[:2] != (model.config.n_layer, model.config.n_embd):
            raise ValueError(
                f"this lens was tuned for {self.weight.shape[0]} layers of width {self.weight.shape[1]}, "
                f"got a model with {model.config.n_layer} of {model.config.n_embd}"
            )
        return _lens(model, model.to_ids(ids, prepend_bos=prepend_bos), self.translated)

    def translated(self, streams: Array) -> Array:
        """Return all streams, (L + 1, T, D), as this lens takes them to the last one, which stays."""
        return np.concatenate([streams[:-1] @ self.weight + self.bias[:, None], streams[-1:]])

    def save(self, path: Path) -> None:
        """Write a safetensors file; a broken write leaves nothing behind."""
        from safetensors.numpy import save

        write_whole(path, save({"weight": self.weight, "bias": self.bias}))

    @classmethod
    def load(cls, path: Path) -> TunedLens:
        """Read what `save` wrote; ``ValueError`` names a broken file."""
        try:
            tensors = floats(path)
            lens = cls(tensors["weight"], tensors["bias"])
        except KeyError as error:
            raise ValueError(f"{path} is not a tuned lens: it has no tensor {error}") from None
        except ValueError as error:
            raise ValueError(f"{path} is not a tuned lens: {str(error).removeprefix(f'{path}: ')}") from None
        L, D = lens.bias.shape if lens.bias.ndim == 2 else (0, 0)
        if lens.weight.shape != (L, D, D):
            raise ValueError(f"{path} is not a tuned lens: its shapes are {lens.weight.shape} and {lens.bias.shape}")
        if not (np.isfinite(lens.weight).all() and np.isfinite(lens.bias).all()):
            raise ValueError(f"{path} is not a tuned lens: it must be finite, got NaN or infinity")
        return lens


class HeldOut(Readable):
    """Texts to fit on, read once: of each ten the second is held out, and the first `most` of those are kept.

    After the texts have been read, ``held_out`` are those, ``first`` is the very first, and ``positions`` counts what
    a lens is fitted on, all positions but each text's first.
    """

    def __init__(self, texts: Iterable[Sequence[int]], most: int = 20) -> None:
        self.texts, self.most = texts, most
        self.held_out: list[Sequence[int]] = []
        self.first: Sequence[int] = ()
        self.positions = 0

    def __iter__(self) -> Iterator[Sequence[int]]:
        for number, text in enumerate(self.texts):
            if number % 10 == 1:
                if len(self.held_out) < self.most:
                    self.held_out.append(text)
                continue
            if number == 0:
                self.first = text
            self.positions += len(text) - 1
            yield text


def train_tuned_lens(
    model: Model,
    texts: Iterable[Sequence[int]],
    *,
    ridge: float = 1e-3,
    progress: Callable[[int], object] | None = None,
) -> TunedLens:
    """Fit a `TunedLens` on texts of ids: for each layer the affine map that best gives the final stream.

    Least squares of the change that is still to come, over all positions but each text's first (its stream is an
    outlier many times larger), with a little `ridge` (a share of the mean variance) towards the logit lens. The texts
    are read once and never kept. `progress` is told each text's tokens.
    """
    if not 0 <= ridge <= LARGEST_RIDGE:
        raise ValueError(f"ridge must be between 0 and {LARGEST_RIDGE:.0e}, got {ridge}")
    L, D = model.config.n_layer, model.config.n_embd
    square, cross, seen = np.zeros((L, D + 1, D + 1)), np.zeros((L, D + 1, D)), 0
    names = stream_names(model)
    # No product of one layer is large enough for BLAS's own threads.
    each_layer = partial(each, pieces=range(L), size=square.size, one_blas=True)
    for text in texts:
        streams = activations(model, np.atleast_2d(text), names)  # nothing here reads logits
        final = streams[names[-1]][0, 1:].astype(np.float64)
        each_layer(partial(_add, [streams[name][0, 1:] for name in names[:-1]], final, square, cross))
        seen += len(final)
        if progress is not None:
            progress(len(final) + 1)
    if seen < 2:
        raise ValueError(f"a lens needs at least 2 positions after the first of a text to be tuned on, got {seen}")
    if not (np.isfinite(square).all() and np.isfinite(cross).all()):
        raise ValueError("the streams are too large for least squares in float64")
    solved = np.empty_like(cross)

    def fit(layer: int) -> None:
        spread = np.trace(square[layer][:D, :D]) / D
        square[layer][np.arange(D), np.arange(D)] += ridge * spread
        solved[layer] = solve(square[layer], cross[layer], ridge > 0)

    each_layer(fit)
    weight = solved[:, :D] + np.eye(D)
    return TunedLens(weight.astype(model.dtype), solved[:, D].astype(model.dtype))


def _add(streams: Sequence[Array], final: Array, square: Array, cross: Array, layer: int) -> None:
    """Add a text's share of a layer's least squares: what the stream says about itself, and about what is to come."""
    x = np.ones((len(final), final.shape[1] + 1))
    x[:, :-1] = streams[layer]
    square[layer] += x.T @ x
    cross[layer] += x.T @ (final - x[:, :-1])


def solve(square: Array, cross: Array, definite: bool) -> Array:
    """Solve square · x = cross. A ridge makes it `definite`; without one, of all solutions the shortest is taken.

    The singular values that the shortest needs cost some thirty times as much as an elimination.
    """
    return np.linalg.solve(square, cross) if definite else np.linalg.lstsq(square, cross, rcond=None)[0]
