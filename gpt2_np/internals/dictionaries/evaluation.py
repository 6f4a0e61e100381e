"""The quality of a dictionary: sparsity, reconstruction, and the loss of a model that uses its reconstructions.

The numbers are those of SAELens's ``run_evals`` (6.54) and of SAEBench's core evaluation, from one pass over a corpus.
Both go by batches in places, and so do these, in batches of texts of one length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...display import Readable, boxed, described, table
from ...session.model import Model
from ...system.files import JSONObject
from ...system.reuse import reusing
from . import places, resumed
from .comparing import compare
from .dictionary import Dictionary

Array = np.ndarray
REUSED = 1 << 28  # bytes: each run needs arrays that the run before has freed
DENSE = 0.1  # the share of tokens from which a feature is called dense (Rajamanoharan et al. 2024, section 5.3)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The result of `evaluate`. Losses and divergences are in nats a token; ``mse`` is summed over the activation's
    width.

    ``density`` (F,) is the share of tokens at which each feature fires, ``consistency`` (F,) how many tokens of a text
    in which it fires at all (0 for a feature that never does). ``score`` is the share of the loss that silencing the
    activation costs which the dictionary saves; ``kl_score`` is the same of the divergence.
    """

    tokens: int
    texts: int
    l0: float
    l1: float
    mse: float
    cosine: float
    explained_variance: float
    explained_variance_legacy: float
    norm_in: float
    norm_out: float
    norm_ratio: float
    bias: float
    loss: float
    loss_spliced: float
    loss_ablated: float
    kl_spliced: float
    kl_ablated: float
    bench_explained_variance: float
    bench_mse: float
    density: Array
    consistency: Array

    @property
    def score(self) -> float:
        """(loss ablated − loss spliced) / (loss ablated − loss)."""
        return ratio(self.loss_ablated - self.loss_spliced, self.loss_ablated - self.loss)

    @property
    def kl_score(self) -> float:
        """(divergence ablated − divergence spliced) / divergence ablated."""
        return ratio(self.kl_ablated - self.kl_spliced, self.kl_ablated)

    @property
    def dead(self) -> Array:
        """The features that never fired."""
        return np.flatnonzero(self.density == 0)

    @property
    def dense(self) -> Array:
        """The features that fired at more than `DENSE` of the tokens."""
        return np.flatnonzero(self.density > DENSE)

    def __repr__(self) -> str:
        return described(self, score=self.score, dead=len(self.dead), dense=len(self.dense))

    def _repr_html_(self) -> str:
        rows = [
            (name.replace("_", " "), of, value) for of, some in self.as_json().items() for name, value in some.items()
        ]
        return boxed(table(rows, head=["figure", "group", "value"]), title=f"Over {self.tokens:,} tokens")

    def as_json(self) -> JSONObject:
        """One object: SAELens's groups and names; SAEBench's where its formulas differ; dead and dense features."""
        F = len(self.density)
        return {
            "model_behavior_preservation": {
                "kl_div_score": self.kl_score,
                "kl_div_with_ablation": self.kl_ablated,
                "kl_div_with_sae": self.kl_spliced,
            },
            "model_performance_preservation": {
                "ce_loss_score": self.score,
                "ce_loss_with_ablation": self.loss_ablated,
                "ce_loss_with_sae": self.loss_spliced,
                "ce_loss_without_sae": self.loss,
            },
            "reconstruction_quality": {
                "explained_variance": self.explained_variance,
                "explained_variance_legacy": self.explained_variance_legacy,
                "mse": self.mse,
                "cossim": self.cosine,
            },
            "shrinkage": {
                "l2_norm_in": self.norm_in,
                "l2_norm_out": self.norm_out,
                "l2_ratio": self.norm_ratio,
                "relative_reconstruction_bias": self.bias,
            },
            "sparsity": {"l0": self.l0, "l1": self.l1},
            "token_stats": {
                "total_tokens_eval_reconstruction": self.tokens,
                "total_tokens_eval_sparsity_variance": self.tokens,
            },
            "saebench": {"explained_variance": self.bench_explained_variance, "mse": self.bench_mse},
            "features": {
                "count": F,
                "dead": len(self.dead),
                "dense": len(self.dense),
                "share_alive": 1 - len(self.dead) / F,
            },
        }


def evaluate(
    model: Model,
    dictionary: Dictionary,
    texts: Iterable[Sequence[int]],
    *,
    exclude: Sequence[int] | None = None,
    batch: int = 8,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Evaluate a dictionary on texts of ids, of at least two each, which are read once and never kept.

    Tokens in `exclude` (the model's end-of-text ids unless given, as SAELens leaves out special tokens) are neither
    counted nor replaced. `batch` is how many texts of one length are read side by side; `progress` is told how many
    tokens that was. ``ValueError`` where the model has no place for the dictionary, and for a corpus without a token
    that counts.
    """
    return summed(model, dictionary, texts, exclude=exclude, batch=batch, progress=progress).evaluation()


def summed(
    model: Model,
    dictionary: Dictionary,
    texts: Iterable[Sequence[int]],
    *,
    exclude: Sequence[int] | None = None,
    batch: int = 8,
    progress: Callable[[int], object] | None = None,
) -> Sums:
    """The sums that `evaluate` makes its means of: those of parts of a corpus are put together by `sums.merge`."""
    places.check(dictionary, model.config)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    left_out = np.array(model.config.eos_token_ids if exclude is None else list(exclude), np.int64)
    sums = Sums(dictionary.config.d_sae)
    for ids in batches(texts, batch):
        mask = ~np.isin(ids, left_out)
        if mask.any():
            with reusing(REUSED):
                one_batch(model, dictionary, ids, mask, sums)
        sums.texts += len(ids)
        if progress is not None:
            progress(ids.size)
    return sums


def batches(texts: Iterable[Sequence[int]], most: int) -> Iterator[Array]:
    """Texts that follow one another and are of one length as (n, T) arrays, at most so many; those too short to be
    predicted left out."""
    some: list[Sequence[int]] = []
    for text in texts:
        if some and (len(text) != len(some[0]) or len(some) == most):
            yield np.array(some, np.int64)
            some = []
        if len(text) > 1:
            some.append(text)
    if some:
        yield np.array(some, np.int64)


def one_batch(model: Model, dictionary: Dictionary, ids: Array, mask: Array, sums: Sums) -> None:
    """Add what one batch, (B, T) ids of which those in `mask` count, has to say."""
    reads, writes = places.reads(dictionary), places.writes(dictionary)
    logits, plain = resumed.run(model, model.check_ids(ids), [*resumed.needed(writes), reads, writes])
    vectors = places.vectors(dictionary, plain[reads])
    target = vectors if reads == writes else places.targets(dictionary, plain[writes])
    features, out = dictionary.both(vectors)
    sums.add_vectors(target[mask], out.reshape(target.shape)[mask])
    sums.add_features(features, mask)
    del features
    new = np.where(mask[..., None], out.reshape(target.shape), places.picked(dictionary, plain[writes]))
    new = new.astype(target.dtype, copy=False)
    spliced = resumed.logits_with(model, ids, writes, places.put(dictionary, plain[writes], new), plain)
    silent = places.put(dictionary, plain[writes], np.zeros_like(new))
    ablated = resumed.logits_without(model, ids, writes, silent, plain)
    sums.add_logits(ids, mask, logits, spliced, ablated)


class Sums(Readable):
    """Sums over tokens and batches, in float64, which `evaluation` turns into means."""

    def __init__(self, features: int) -> None:
        self.fired, self.texts_fired = np.zeros(features, np.int64), np.zeros(features, np.int64)
        self.texts = self.tokens = self.predicted = self.batches = 0
        self.l0 = self.l1 = self.residual = self.squares = self.cosine = self.legacy = 0.0
        self.norm_in = self.norm_out = self.norm_ratio = self.bias = self.bench_mse = 0.0
        self.batch_squares = self.batch_residual = self.batch_mean_square = 0.0
        self.total: Array | None = None
        self.losses, self.divergences = np.zeros(3), np.zeros(2)

    def add_vectors(self, x: Array, out: Array) -> None:
        """Activations and reconstructions of the n tokens that count, (n, O) each."""
        squares, missed = squared(x), squared(x - out)
        out_squares, both = squared(out), np.einsum("nd,nd->n", x, out, dtype=np.float64)
        n, norms, out_norms = len(x), np.sqrt(squares), np.sqrt(out_squares)
        self.tokens += n
        self.batches += 1
        self.residual += missed.sum()
        self.squares += squares.sum()
        self.total = x.sum(axis=0, dtype=np.float64) + (0 if self.total is None else self.total)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.cosine += (both / (norms * out_norms)).sum()
            self.legacy += (1 - missed / squared(x - x.mean(axis=0))).sum()
            self.bias += out_squares.mean() / both.mean()
        self.norm_in += norms.sum()
        self.norm_out += out_norms.sum()
        self.norm_ratio += (out_norms / np.where(norms < 1e-4, 1, norms)).sum()
        self.bench_mse += missed.sum() / n
        self.batch_squares += squares.mean()
        self.batch_residual += missed.mean()
        self.batch_mean_square += squares.mean() / x.shape[1]

    def add_features(self, features: Array, mask: Array) -> None:
        """The features of a batch, (B, T, F)."""
        for row, counts in zip(features, mask, strict=True):
            on = row != 0
            on &= counts[:, None]
            fired = on.sum(axis=0)
            self.fired += fired
            self.texts_fired += fired > 0
            self.l0 += float(fired.sum())
            self.l1 += float(np.abs(row[counts]).sum(dtype=np.float64))

    def add_logits(self, ids: Array, mask: Array, plain: Array, spliced: Array, ablated: Array) -> None:
        """The logits of a batch without and with the dictionary, and with the activation silenced: (B, T, V) each."""
        losses, divergences = compare(ids, plain, spliced, ablated)
        self.losses += losses[:, mask[:, :-1]].sum(axis=1)
        self.divergences += divergences[:, mask].sum(axis=1)
        self.predicted += int(mask[:, :-1].sum())

    def evaluation(self) -> Evaluation:
        """The means. ``ValueError`` where there is nothing to take them of."""
        if not self.predicted or self.total is None:
            raise ValueError("a dictionary is evaluated on texts of at least 2 tokens that count, got none")
        n = self.tokens
        variance = self.squares / n - float(((self.total / n) ** 2).sum())
        bench = self.batch_squares / self.batches - (self.batch_mean_square / self.batches) ** 2
        tokens_of = np.maximum(self.texts_fired, 1)
        loss, spliced, ablated = (self.losses / self.predicted).tolist()
        return Evaluation(
            tokens=n,
            texts=self.texts,
            l0=self.l0 / n,
            l1=self.l1 / n,
            mse=float(self.residual / n),
            cosine=float(self.cosine / n),
            explained_variance=explained(float(self.residual / n), float(variance)),
            explained_variance_legacy=float(self.legacy / n),
            norm_in=float(self.norm_in / n),
            norm_out=float(self.norm_out / n),
            norm_ratio=float(self.norm_ratio / n),
            bias=float(self.bias / self.batches),
            loss=loss,
            loss_spliced=spliced,
            loss_ablated=ablated,
            kl_spliced=float(self.divergences[0] / n),
            kl_ablated=float(self.divergences[1] / n),
            bench_explained_variance=float(1 - ratio(self.batch_residual / self.batches, bench)),
            bench_mse=float(self.bench_mse / n),
            density=self.fired / n,
            consistency=self.fired / tokens_of,
        )


def squared(x: Array) -> Array:
    """Return the squared length of each vector, (n,) float64."""
    return np.einsum("nd,nd->n", x, x).astype(np.float64)


def explained(missed: float, variance: float) -> float:
    """Return 1 − missed / variance; without variance, 1 for a perfect reconstruction and 0 otherwise."""
    return (1.0 if missed < 1e-10 else 0.0) if variance < 1e-10 else 1 - missed / variance


def ratio(part: float, whole: float) -> float:
    """Return part / whole, or 0 if the whole is 0."""
    return part / whole if whole else 0.0
