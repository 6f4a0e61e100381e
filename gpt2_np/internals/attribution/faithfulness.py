"""The faithfulness of an attribution: circuits of every size, and exact patching of every node and every edge.

Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark" (faithfulness, CPR, CMD); the correlations with
exact patching are what Kramár et al. 2024 and Jafari et al. 2025 print.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...display import described
from ...model import ops
from ...model.edits import Part
from ...model.params import as_array
from ...model.taps import points, select
from ...session.model import Model
from ..variants import Variant, reads_last, run_variants
from . import graph
from .circuit_run import written
from .edges import Edges
from .nodes import Nodes, gathered
from .pairs import Prompts, measure, of_rows, pairs_of, values
from .tables import curve_table

Array = np.ndarray
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges: the benchmark's sizes
PATCHED = ("blocks.*.resid_pre", "blocks.*.attn_out", "blocks.*.mlp_out")
TOKENS_PER_RUN = 512  # tokens in one run


@dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """Faithfulness over circuit size: `shares` of all edges were asked for, `edges` were left after pruning."""

    shares: Array
    edges: Array
    faithfulness: Array

    @property
    def cpr(self) -> float:
        """Circuit performance ratio: the area under the curve, by trapezoids over the shares. Higher is better."""
        return _area(self.shares, self.faithfulness)

    @property
    def cmd(self) -> float:
        """Circuit-model distance: the area between the curve and 1. 0 is best."""
        return _area(self.shares, np.abs(1 - self.faithfulness))

    def __repr__(self) -> str:
        return described(self, cpr=self.cpr, cmd=self.cmd)

    def _repr_html_(self) -> str:
        return curve_table(self)


def _area(x: Array, y: Array) -> float:
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def curve(
    found: Edges,
    shares: Sequence[float] = SHARES,
    *,
    absolute: bool = True,
    ablation: str = "corrupted",
    progress: Callable[[int], Any] | None = None,
) -> Curve:
    """The faithfulness of circuits of the best edges, of these `shares` of all edges, as `Circuit.faithfulness` has it.

    `progress` is told of every circuit. ``ValueError`` for shares that don't rise within (0, 1].
    """
    x = np.asarray(shares, np.float64)
    if x.ndim != 1 or not len(x) or (np.diff(x) <= 0).any() or x[0] <= 0 or x[-1] > 1:
        raise ValueError(f"shares must rise within (0, 1], got {list(shares)}")
    total, sizes, reached = int(graph.there(found.model.config).sum()), [], []
    for share in x:
        circuit = found.circuit(int(share * total), absolute=absolute)
        sizes.append(len(circuit))
        reached.append(circuit.faithfulness(ablation))
        if progress is not None:
            progress(1)
    return Curve(x, np.array(sizes), np.array(reached))


def exact_nodes(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    metric: Any,
    *,
    names: str | Iterable[str] = PATCHED,
    prepend_bos: bool = False,
    batch: int = 32,
    progress: Callable[[int], Any] | None = None,
) -> Nodes:
    """Compute what `nodes` estimates, by patching: each node of the clean run is put into the corrupted run, one run
    each.

    A score is the metric of that run minus the corrupted run's. `names` are activations that are vectors by position,
    or by position and head; `progress` receives the number of runs. ``ValueError`` for other activations, which have
    too many nodes.
    """
    metric = measure(metric, model)
    pairs = pairs_of(model, clean, corrupted, prepend_bos=prepend_bos)
    chosen, shapes = select(names, model.config), points(model.config)
    for name in chosen:
        if shapes[name] not in ("B T D", "B T H K", "B T H D", "B T V"):
            raise ValueError(f"exact patching goes by position, or position and head; {name} has {shapes[name]}")
    found: dict[str, list[Array]] = {name: [] for name in chosen}
    measured = []
    for pair, (before, after) in enumerate(zip(pairs.clean, pairs.corrupted, strict=True)):
        alone = of_rows(metric, np.array([pair]), len(pairs))
        logits, cache = model.run_with_cache(before[None], chosen)
        plain = values(alone, model.run_with_cache(after[None], ())[0], after[None])
        measured.append((values(alone, logits, before[None]), plain))
        sizes = {
            name: (len(after), model.config.n_head)[: shapes[name].count("T") + shapes[name].count("H")]
            for name in chosen
        }
        variants: list[Variant] = [
            {name: Part(cache[name], *place)} for name in chosen for place in np.ndindex(*sizes[name])
        ]

        def value(logits: Array, after: Array = after, alone: Any = alone) -> Array:
            rows = len(logits)
            return values(of_rows(alone, np.zeros(rows, int), 1), logits, np.repeat(after[None], rows, 0))

        last = reads_last(alone)
        effects = run_variants(model, after, variants, value, batch=batch, last=last, progress=progress) - plain
        start = 0
        for name in chosen:
            count = int(np.prod(sizes[name]))
            found[name].append(effects[start : start + count].reshape(sizes[name]))
            start += count
    return gathered({name: np.stack(parts) for name, parts in found.items()}, "exact", measured, pairs, model)


def exact_edges(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    metric: Any,
    *,
    prepend_bos: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Edges:
    """Compute what `edges` estimates, by patching the clean run's value along each edge into the corrupted run, one run
    each.

    This is for small models: GPT-2 small has 32,491 edges. `progress` receives the number of edges.
    """
    metric = measure(metric, model)
    pairs = pairs_of(model, clean, corrupted, prepend_bos=prepend_bos)
    each = np.zeros((len(pairs), *graph.there(model.config).shape))
    before, after = np.zeros((2, len(pairs)))
    for pair, (one, other) in enumerate(zip(pairs.clean, pairs.corrupted, strict=True)):
        alone = of_rows(metric, np.array([pair]), len(pairs))
        before[pair] = values(alone, model.run_with_cache(one[None], ())[0], one[None])[0]
        after[pair] = values(alone, model.run_with_cache(other[None], ())[0], other[None])[0]
        change = (written(model, one[None], "corrupted") - written(model, other[None], "corrupted"))[:, 0]
        _, cache = model.run_with_cache(
            other[None], ["*.resid_pre", "*.attn.q", "*.attn.k", "*.attn.v", "*.resid_mid", "ln_final.in"]
        )
        for receiver, until in enumerate(graph.there(model.config).sum(axis=0)):
            size = max(1, TOKENS_PER_RUN // len(other))
            for start in range(0, until, size):
                some = slice(start, min(start + size, until))
                changes = _patched(model, cache, receiver, change[some])
                ids = np.repeat(other[None], some.stop - some.start, 0)
                logits, _ = model.run_with_edits(ids, changes)
                repeated = of_rows(alone, np.zeros(len(ids), int), 1)
                each[pair, some, receiver] = values(repeated, logits, ids) - after[pair]
                if progress is not None:
                    progress(len(ids))
    return Edges(each.mean(axis=0), each.std(axis=0), "exact", before, after, model, pairs, metric)


def _patched(model: Model, cache: Any, receiver: int, change: Array) -> dict[str, Any]:
    """Return the edit that makes a receiver read the stream with one of some changes, (n, T, D), in each row."""
    config = model.config
    layer, place = divmod(receiver, 3 * config.n_head + 1)
    if layer == config.n_layer:
        return {"ln_final.in": cache["ln_final.in"] + change}
    if place == 3 * config.n_head:
        return {f"blocks.{layer}.ln2.in": cache["resid_mid", layer] + change}
    (part, head), p = divmod(place, config.n_head), model.params.h[layer]
    columns = place * config.head_width + np.arange(config.head_width)
    read = ops.layer_norm(cache["resid_pre", layer] + change, *p.ln_1, config.layer_norm_epsilon)
    name = f"blocks.{layer}.attn.{'qkv'[part]}"
    made = np.repeat(cache[name], len(change), 0)
    made[:, :, head] = read @ as_array(p.attn.c_attn.weight)[:, columns] + p.attn.c_attn.bias[columns]
    return {name: made}


def agreement(estimate: Nodes | Edges, exact: Nodes | Edges) -> dict[str, float]:
    """Return Pearson's correlation of an estimate with exact patching: for nodes by point, over layers and places; for
    edges.

    ``{"resid_pre": 0.98, …}`` or ``{"edges": 0.9}``. NaN where one of them is the same everywhere.
    """
    if isinstance(estimate, Edges) and isinstance(exact, Edges):
        mask = graph.there(estimate.model.config)
        return {"edges": _pearson(estimate.scores[mask], exact.scores[mask])}
    if not isinstance(estimate, Nodes) or not isinstance(exact, Nodes):
        raise ValueError("an estimate by node is compared with exact nodes, one by edge with exact edges")
    table: dict[str, list[tuple[Array, Array]]] = {}
    for name, x in exact.scores.items():
        if name in estimate.scores:
            point = name.split(".", 2)[2] if name.startswith("blocks.") else name
            table.setdefault(point, []).append((estimate.scores[name].reshape(-1), x.reshape(-1)))
    return {
        point: _pearson(*(np.concatenate(side) for side in zip(*both, strict=True))) for point, both in table.items()
    }


def _pearson(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else float("nan")
