"""Attribution graphs: the effects of one prompt's features on each other, with transcoders in place of the MLPs.

Ameisen et al. 2025, "Circuit Tracing: Revealing Computational Graphs in Language Models", section 3. Attention patterns
and the norms' scales are held as the prompt has them, and what the transcoders miss is a node of its own. Then a
feature's pre-activation is a sum, exactly: one number from each token's embedding, each feature before it, each error
before it, and a bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...display import NUMBERS, Cell, Texts, boxed, described, number, table, visible
from ...model.params import unembedding
from ...session.model import Model
from . import places, resumed
from .coding import Coder
from .graph_layers import Layer, norm_back

Array = np.ndarray
READS = ("ln2.normalized", "ln2.out")
MOST = 6000  # features of a graph: every one has an edge from every one before it


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """The graph of one prompt of T tokens. Sources are nodes that others read, targets those that read.

    ``sources`` are ("token", -1, t, -1), ("feature", layer, t, number) and ("error", layer, t, -1); ``targets`` the
    features, in the same order, and ("logit", L, position, token) at last. ``edges`` (targets, sources) is what each
    source adds to each target: to a feature's pre-activation, to the logit. With ``biases`` (targets,) the rows add up
    to ``values`` (targets,). ``activations`` (features,) are those of the features. Where the last target is the logit
    less another one's, ``versus`` is that token.
    """

    ids: Array
    sources: list[tuple[str, int, int, int]]
    targets: list[tuple[str, int, int, int]]
    edges: Array
    biases: Array
    values: Array
    activations: Array
    versus: int | None = None
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        order = np.argsort(-np.abs(self.edges[-1]), kind="stable")[:12]
        most, pieces = float(np.abs(self.edges[-1]).max(initial=0)) or 1.0, self.texts(self.ids)
        rows = []
        for one in order:
            kind, layer, at, feature = self.sources[one]
            name = f"{kind} {feature}" if kind == "feature" else kind
            value = float(self.edges[-1, one])
            rows.append(
                (name, "" if layer < 0 else layer, f"{at} {visible(pieces[at])}", Cell(number(value), value / most))
            )
        title = f"A graph of {len(self.activations):,} features: the largest edges into the logit {self.values[-1]:.4g}"
        return boxed(table(rows, head=["source", "layer", "token", "adds"]), title=title)

    def between(self) -> Array:
        """Return the edges from feature to feature, (features, features)."""
        first = len(self.ids)
        return self.edges[:-1, first : first + len(self.activations)]

    def effects(self) -> Array:
        """Return how ablating each feature would change the logit by this graph, over all its paths: (features,).

        A feature's change is the sum of the changes of what it reads: features stay on, and as they are in scale.
        """
        first, n = len(self.ids), len(self.activations)
        # r: the share of a feature that is left, less 1. One that is silenced has −1; others follow what they read.
        shares = self.between() / self.activations[:, None]
        direct = self.edges[-1, first : first + n]
        return -self.followed(shares, direct)

    def followed(self, shares: Array, direct: Array) -> Array:
        """Solve total = direct + sharesᵀ · total, over all paths: what goes from each feature to the end, (features,).

        Features read only features of earlier layers, so this is one product a layer, from the last layer back.
        """
        total, end = direct.copy(), len(direct)
        for layer in sorted({target[1] for target in self.targets[:-1]}, reverse=True):
            start = sum(target[1] < layer for target in self.targets[:-1])
            total[:start] += total[start:end] @ shares[start:end, :start]
            end = start
        return total

    def flows(self) -> Array:
        """Return how much of the logit's sum of sizes leads back along each edge, (targets, sources).

        Each target's edges are taken by size and made to add up to 1; paths are followed from the logit back.
        """
        sizes = np.abs(self.edges)
        sizes = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        first, n = len(self.ids), len(self.activations)
        reached = self.followed(sizes[:-1, first : first + n], sizes[-1, first : first + n])
        return np.append(reached, 1.0)[:, None] * sizes

    def influence(self) -> Array:
        """Return how much of the logit's sum of sizes leads back to each source, (sources,): Ameisen et al., 3.3."""
        return self.flows().sum(axis=0)

    def strongest(self, count: int) -> list[tuple[int, int, float, float]]:
        """The edges along which most leads back: target, source, what is added, and the share of all (`flows`)."""
        flows = self.flows()
        order = np.argsort(-flows, axis=None, kind="stable")[:count]
        places = [
            (int(target), int(source)) for target, source in zip(*np.unravel_index(order, flows.shape), strict=True)
        ]
        return [(*one, float(self.edges[one]), float(flows[one])) for one in places if flows[one]]

    def gap(self) -> float:
        """By how much edges and bias miss a target's value at most: rounding."""
        return float(np.abs(self.edges.sum(axis=1) + self.biases - self.values).max())

    def pruned(self, count: int) -> Graph:
        """Return the graph with the `count` features of most influence; the contributions of the others become part of
        the biases.
        """
        first, n = len(self.ids), len(self.activations)
        order = np.sort(np.argsort(-self.influence()[first : first + n], kind="stable")[:count])
        columns = np.concatenate([np.arange(first), first + order, np.arange(first + n, len(self.sources))])
        rows = np.append(order, n)
        lost = self.edges[rows].sum(axis=1) - self.edges[np.ix_(rows, columns)].sum(axis=1)
        return Graph(
            self.ids,
            [self.sources[one] for one in columns],
            [self.targets[one] for one in rows],
            self.edges[np.ix_(rows, columns)],
            self.biases[rows] + lost,
            self.values[rows],
            self.activations[order],
            self.versus,
            self.texts,
        )


def graph(
    model: Model,
    transcoders: Sequence[Coder],
    ids: str | Sequence[int] | Array,
    token: int,
    versus: int | None = None,
    *,
    position: int = -1,
    prepend_bos: bool = False,
    skip_first: int | None = None,
) -> Graph:
    """The attribution graph of one prompt for the logit of `token` (less that of `versus`) at a position.

    `transcoders` are one a layer, first to last, from ``ln2.normalized`` or ``ln2.out`` to ``mlp_out``. At the prompt's
    first `skip_first` positions no feature is a node, and what the MLPs write there is error: a transcoder that never
    saw those outliers in training lights up all over there. None: as many as the transcoders' training left out, which
    ``cfg.json`` says of those trained here. Computed in float64. ``ValueError`` for other transcoders, for top-k (whose
    features compete), for more than one prompt, and for more than `MOST` features that fire.
    """
    row = model.check_ids(model.to_ids(ids, prepend_bos=prepend_bos))
    T, L = row.shape[1], model.config.n_layer
    if len(row) != 1 or not -T <= position < T:
        raise ValueError(f"position must be between {-T} and {T - 1} of one prompt, got {position}, {len(row)} rows")
    check(model, transcoders)
    wanted = [
        f"blocks.{layer}.{name}" for layer in range(L) for name in ("ln1.scale", "ln2.scale", "attn.pattern", "mlp_out")
    ]
    wanted += [places.reads(one) for one in transcoders]
    logits, found = resumed.run(model, row, [*wanted, "embed", "pos_embed", "ln_final.scale"])
    run = {name: x[0].astype(np.float64) for name, x in found.items()}
    first = max(map(left_out, transcoders)) if skip_first is None else skip_first
    if first < 0:
        raise ValueError(f"skip_first must be at least 0, got {skip_first}")
    layers = [Layer(model.params.h[layer], one, run, layer, first) for layer, one in enumerate(transcoders)]
    count = sum(len(layer.features) for layer in layers)
    if count > MOST:
        raise ValueError(f"at most {MOST} features may fire in a graph, got {count:,}: give a shorter prompt")

    words = unembedding(model.params)
    read = (words[token] - (0 if versus is None else words[versus])).astype(np.float64)
    flow = np.zeros((1, T, model.config.n_embd))
    flow[0, position] = read * model.params.ln_f.weight
    flow = norm_back(flow, run["ln_final.scale"])
    biases = [float(read @ model.params.ln_f.bias)]
    targets: list[tuple[str, int, int, int]] = [("logit", L, position % T, token)]
    here = logits[0, position].astype(np.float64)
    values = [float(here[token] - (0 if versus is None else here[versus]))]
    feature_edges: list[Array] = []  # by layer, the last first: (targets so far, that layer's features)
    error_edges: list[Array] = []
    for layer in reversed(layers):
        feature_edges.append(layer.arriving(flow))
        error_edges.append(np.einsum("ntd,td->nt", flow, layer.error))
        biases = list(np.array(biases) + flow.sum(axis=1) @ layer.b_dec)
        flow, skipped = layer.through_skip(flow)
        biases = list(np.array(biases) + skipped)
        flow = np.concatenate([flow, layer.reading(T)])
        biases += layer.biases.tolist()
        values += layer.pre.tolist()
        targets += [
            ("feature", layer.number, int(at), int(one))
            for at, one in zip(layer.positions, layer.features, strict=True)
        ]
        biases = list(np.array(biases) + flow.sum(axis=1) @ layer.constant)
        flow = flow + layer.through_attention(flow)
    embedded = run["embed"] + run["pos_embed"]
    n = len(targets)
    blocks = [np.einsum("ntd,td->nt", flow, embedded)]
    for edges in [*reversed(feature_edges), *reversed(error_edges)]:
        blocks.append(np.concatenate([edges, np.zeros((n - len(edges), edges.shape[1]))]))
    # Targets were found from the logit back; they are given from the first layer on, the logit last.
    order = sorted(range(1, n), key=lambda one: targets[one][1:]) + [0]
    sources = [("token", -1, at, -1) for at in range(T)]
    sources += [targets[one] for one in order[:-1]]
    sources += [("error", layer, at, -1) for layer in range(L) for at in range(T)]
    return Graph(
        row[0],
        sources,
        [targets[one] for one in order],
        np.concatenate(blocks, axis=1)[order],
        np.array(biases)[order],
        np.array(values)[order],
        np.concatenate([layer.activations for layer in layers]),
        versus,
        model.texts,
    )


def left_out(transcoder: Coder) -> int:
    """Return how many positions at each text's start a transcoder's training left out, by its file; else 0."""
    training = transcoder.config.metadata.get("training")
    found = training.get("skip_first", 0) if isinstance(training, Mapping) else 0
    return found if isinstance(found, int) and found > 0 else 0


def check(model: Model, transcoders: Sequence[Coder]) -> None:
    """Raise ``ValueError`` unless they are one transcoder per layer of a supported kind."""
    if len(transcoders) != model.config.n_layer:
        raise ValueError(
            f"a graph needs a transcoder for each of {model.config.n_layer} layers, got {len(transcoders)}"
        )
    for layer, one in enumerate(transcoders):
        places.check(one, model.config)
        reads, writes = places.reads(one), places.writes(one)
        if writes != f"blocks.{layer}.mlp_out" or reads not in [f"blocks.{layer}.{name}" for name in READS]:
            raise ValueError(f"layer {layer}'s transcoder must lead from its ln2 to its mlp_out, got {reads}, {writes}")
        if one.config.activation not in ("relu", "jumprelu") or one.config.normalize_activations != "none":
            raise ValueError(
                f"a graph needs transcoders with ReLU or JumpReLU and no normalisation, got layer {layer}'s"
            )
