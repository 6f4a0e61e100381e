"""Is an attribution graph true? Features silenced one by one in the model itself, beside what the graph predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...display import described
from ...model.edits import Part
from ...session.model import Model
from ..variants import Variant, run_variants
from .coding import Coder
from .graph import Graph

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Silenced:
    """Some features of a graph, each silenced at its token: ``which`` of them, and how the logit changes, (n,) each.

    ``predicted`` is `Graph.effects`, by which attention patterns, norms' scales and the features that fire stay as they
    are; ``measured`` is the model's own answer, in which everything after the feature is computed again.
    """

    which: Array
    predicted: Array
    measured: Array

    def __repr__(self) -> str:
        return described(self, correlation=self.correlation)

    @property
    def correlation(self) -> float:
        """Pearson's. NaN for fewer than two features, and where one side is the same everywhere."""
        if len(self.which) < 2 or not np.ptp(self.predicted) or not np.ptp(self.measured):
            return float("nan")
        return float(np.corrcoef(self.predicted, self.measured)[0, 1])


def silence(
    model: Model,
    transcoders: Sequence[Coder],
    found: Graph,
    count: int = 200,
    *,
    batch: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Silenced:
    """Silence the `count` features of a whole graph of which it predicts most, one run each.

    What the feature writes is taken out of its layer's ``mlp_out`` at its token, so that the transcoder's error stays.
    `progress` receives the numbers of runs.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    _, _, position, token = found.targets[-1]
    predicted = found.effects()
    which = np.argsort(-np.abs(predicted), kind="stable")[:count]
    variants: list[Variant] = []
    for one in which:
        _, layer, at, feature = found.targets[one]
        written = found.activations[one] * transcoders[layer].directions([feature])[0]
        variants.append({f"blocks.{layer}.mlp_out": Part(_without(written), at)})

    def logit(logits: Array) -> Array:
        here = logits[:, position].astype(np.float64)
        return here[:, token] - (0 if found.versus is None else here[:, found.versus])

    plain = logit(model.run_with_cache(found.ids[None], [])[0])[0]
    measured = run_variants(model, found.ids, variants, logit, batch=batch, progress=progress) - plain
    return Silenced(which, predicted[which], measured)


def _without(written: Array) -> Callable[[Array], Array]:
    return lambda x: x - written
