"""Attribution by edge: the effect of a sender's change through one receiver alone, for all edges from a few gradients.

EAP: Syed et al. 2023, "Attribution Patching Outperforms Automated Circuit Discovery"; EAP-IG: Hanna et al. 2024, "Have
Faith in Faithfulness: Going Beyond Circuit Overlap When Finding Model Mechanisms"; RelP: Jafari et al. 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...display import Readable, described
from ...model.activations import ActivationCache
from ...model.forward import head_results
from ...model.params import as_array
from ...session.model import Model
from . import graph
from .circuit import Circuit
from .circuit_run import SENT
from .pairs import Pairs, Prompts, measure, of_rows, pairs_of, values
from .rules import relevance
from .tables import edge_table

Array = np.ndarray
METHODS = ("eap", "eap-ig", "eap-ig-activations", "relp")
READ = [
    *(f"blocks.*.attn.{part}" for part in "qkv"),
    "blocks.*.ln1.normalized",
    "blocks.*.ln1.scale",
    "blocks.*.ln2.in",
    "ln_final.in",
]
TOKENS_PER_RUN = 512  # tokens in one run
POSITIONS_PER_SUM = 64  # positions whose senders' differences are in memory at once


@dataclass(frozen=True, eq=False, repr=False)
class Edges:
    """The score of every edge: an estimate of the metric's change when the clean run's value is patched along it.

    ``scores`` is (senders, receivers), 0 where there is no edge, positive where the metric moves towards the clean
    run's; of several pairs the mean, with the standard deviation as `spread`. `clean` and `corrupted` are the metric
    of each pair's runs, (n,).
    """

    scores: Array
    spread: Array
    method: str
    clean: Array
    corrupted: Array
    model: Model = field(repr=False)
    pairs: Pairs = field(repr=False)
    metric: Any = field(repr=False)

    @property
    def senders(self) -> list[str]:
        """The names of the rows: ``input``, ``a0.h0`` (layer 0, head 0), …, ``m0`` (its MLP), …"""
        return graph.senders(self.model.config)

    @property
    def receivers(self) -> list[str]:
        """The names of the columns: ``a0.h0<q>``, …, ``m0``, …, ``logits``."""
        return graph.receivers(self.model.config)

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return edge_table(self)

    def top(self, n: int = 10) -> list[tuple[str, str, float]]:
        """The n edges of the largest scores: sender, receiver, score."""
        _at_least(n, 0)
        order = np.argsort(-np.abs(self.scores), axis=None, kind="stable")
        mask, left, right = graph.there(self.model.config), self.senders, self.receivers
        places = (np.unravel_index(number, self.scores.shape) for number in order)
        real = [(int(s), int(r)) for s, r in places if mask[s, r]][:n]
        return [(left[s], right[r], float(self.scores[s, r])) for s, r in real]

    def circuit(
        self, n: int | None = None, *, threshold: float | None = None, absolute: bool = True, prune: bool = True
    ) -> Circuit:
        """Return the circuit of the n best edges, or of those of at least `threshold`, without dead ends.

        With `absolute` edges are ranked by the size of their scores, otherwise only positive scores count. Pruning may
        leave fewer than n.
        """
        config = self.model.config
        if (n is None) is (threshold is None):
            raise ValueError("a circuit needs n, the number of its best edges, or threshold, and not both")
        if n is not None:
            chosen = graph.best(self.scores, config, _at_least(n, 0), absolute=absolute)
        else:
            chosen = graph.above(self.scores, config, float(threshold or 0), absolute=absolute)
        chosen = graph.pruned(chosen, config) if prune else chosen
        return Circuit(chosen, self.scores, self.model, self.pairs, self.metric, (self.clean, self.corrupted))


def _at_least(n: int, least: int) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < least:
        raise ValueError(f"n must be a whole number of at least {least}, got {n!r}")
    return int(n)


def edges(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    metric: Any,
    method: str = "eap",
    steps: int = 5,
    *,
    prepend_bos: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Edges:
    """Score every edge by the sender's difference (clean − corrupted) · the gradient at the receiver's input.

    `clean` and `corrupted` are a text or ids each, or lists of them, of any lengths from pair to pair. `method`: "eap",
    the gradient of the corrupted run; "eap-ig", its mean over runs whose token embeddings lie k/steps of the way from
    corrupted to clean, k = 0 … steps − 1 (so one step is EAP); "eap-ig-activations", the mean over runs in which the
    embedding, a layer's heads or an MLP lies so, one after another, through which no gradient passes (so ways
    through many layers count for less, as in the reference); "relp", relevance in place of gradients (patterns are held
    there, so queries and keys get 0). `progress` is told the number of pairs that are done.

    The reference implementation patches the corrupted run's messages into the clean run, with the opposite sign:
    ``edges(model, a, b, metric)`` is its EAP of (b, a), "eap-ig" the negative of its EAP-IG of (a, b).

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import logit_difference
        >>> from gpt2_np.internals import attribution
        >>> metric = logit_difference(" queen", " king")
        >>> found = attribution.edges(model, "The king and the", "The queen and the", metric)
        >>> found.scores.shape == (len(found.senders), len(found.receivers))
        True
        >>> circuit = found.circuit(100)
        >>> circuit.run("The king and the").shape
        (4, 4096)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
    metric = measure(metric, model)
    pairs = pairs_of(model, clean, corrupted, prepend_bos=prepend_bos)
    rule = relevance(model) if method == "relp" else None
    each = np.zeros((len(pairs), *graph.there(model.config).shape))
    before, after = np.zeros((2, len(pairs)))
    for rows, from_clean, from_corrupted in pairs.batches(TOKENS_PER_RUN):
        alone = of_rows(metric, rows, len(pairs))
        logits, sent = model.run_with_cache(from_clean, SENT)
        before[rows] = values(alone, logits, from_clean)
        if method in ("eap", "relp"):
            run = model.run_with_gradients(from_corrupted, alone, [*SENT, *READ], gradient_edits=rule)
            after[rows], received = run.value, Received(model, run, held=method == "relp")
            own = run.cache
        else:
            logits, own = model.run_with_cache(from_corrupted, SENT)
            after[rows] = values(alone, logits, from_corrupted)
            ways = {"eap-ig": inputs_on_the_way, "eap-ig-activations": activations_on_the_way}[method]
            received = Received(model)
            for changes in ways(model, sent, own, steps):
                ids = np.repeat(from_corrupted, steps, 0)
                repeated = of_rows(alone, np.repeat(np.arange(len(rows)), steps), len(rows))
                run = model.with_edits(changes).run_with_gradients(ids, repeated, READ)
                received.add(run, steps)
        each[rows] = summed(model, sent, own, received)
        if progress is not None:
            progress(len(rows))
    return Edges(each.mean(axis=0), each.std(axis=0), method, before, after, model, pairs, metric)


def inputs_on_the_way(
    model: Model, clean: ActivationCache, corrupted: ActivationCache, steps: int
) -> Iterator[dict[str, Array]]:
    """Return the edits of EAP-IG's runs: embeddings between corrupted and clean, `steps` for each row, (b·steps, T,
    D).
    """
    yield {"embed": on_the_way(clean["embed"], corrupted["embed"], steps)}


def activations_on_the_way(
    model: Model, clean: ActivationCache, corrupted: ActivationCache, steps: int
) -> Iterator[dict[str, Array]]:
    """Interpolate one layer's heads, one MLP, or the embedding, with everything else as in the corrupted run."""
    for name in clean:
        yield {name: on_the_way(clean[name], corrupted[name], steps)}


def on_the_way(clean: Array, corrupted: Array, steps: int) -> Array:
    """Interpolate: corrupted + k/steps · (clean − corrupted), k = 0 … steps − 1, row by row: (b, …) → (b·steps, …)."""
    shares = (np.arange(steps) / steps).astype(clean.dtype).reshape(1, steps, *[1] * (clean.ndim - 1))
    between = corrupted[:, None] + shares * (clean - corrupted)[:, None]
    return between.reshape(-1, *clean.shape[1:])


class Received(Readable):
    """The gradients at the receivers' inputs, each layer's (b, T, R, D): the mean over several runs of the same rows.

    With `held`, layer norm's scale counts as a constant.
    """

    def __init__(self, model: Model, run: Any = None, *, held: bool = False) -> None:
        self.model, self.held = model, held
        self.runs: list[tuple[Any, int]] = [] if run is None else [(run, 1)]

    def add(self, run: Any, steps: int) -> None:
        """One more run, whose rows are `steps` for each."""
        self.runs.append((run, steps))

    def attention(self, layer: int, some: slice) -> Array:
        """Return those at a layer's queries, keys and values, at some positions: (b, 3·H, t, D).

        Each is a head's gradient through its matrix, and through the layer norm that the head reads with:
        (g − mean(g) − n · mean(g·n)) / s.
        """
        config, p = self.model.config, self.model.params.h[layer]
        D, H, K, prefix = config.n_embd, config.n_head, config.head_width, f"blocks.{layer}."
        weight = as_array(p.attn.c_attn.weight) * p.ln_1.weight[:, None]
        per_head = weight.reshape(D, 3 * H, K).transpose(1, 2, 0)  # (3·H, K, D)
        per_head = per_head - per_head.mean(axis=-1, keepdims=True)

        def of(run: Any) -> Array:
            parts = [run.grads[f"{prefix}attn.{part}"][:, some] for part in "qkv"]
            gradient = np.concatenate(parts, axis=2).transpose(0, 2, 1, 3)  # (rows, 3·H, t, K)
            found: Array = gradient @ per_head
            if not self.held:
                normalized = run.cache[f"{prefix}ln1.normalized"][:, None, some]
                found -= (
                    normalized
                    * np.einsum("rhtd,rhtd->rht", found, np.broadcast_to(normalized, found.shape))[..., None]
                    / D
                )
            found /= run.cache[f"{prefix}ln1.scale"][:, None, some]
            return found

        return self._mean(of)

    def stream(self, name: str, some: slice) -> Array:
        """Return those at an MLP's norm, or the last norm, at some positions: (b, 1, t, D)."""
        return self._mean(lambda run: run.grads[name][:, None, some])

    def _mean(self, of: Callable[[Any], Array]) -> Array:
        parts = []
        for run, steps in self.runs:
            x = of(run)
            parts.append(x if steps == 1 else x.reshape(-1, steps, *x.shape[1:]).mean(axis=1))
        return parts[0] if len(parts) == 1 else np.mean(parts, axis=0)


def summed(model: Model, clean: ActivationCache, corrupted: ActivationCache, received: Received) -> Array:
    """Return Σ over positions and D of the senders' differences times the gradients at the receivers: (b, S, R)."""
    config = model.config
    B, T, _ = clean["embed"].shape
    scores = np.zeros((B, *graph.there(config).shape))
    for start in range(0, T, POSITIONS_PER_SUM):
        some = slice(start, start + POSITIONS_PER_SUM)
        flat = differences(model, clean, corrupted, some).reshape(B, len(scores[0]), -1)

        def add(until: int, columns: slice, gradient: Array, flat: Array = flat) -> None:
            scores[:, :until, columns] += flat[:, :until] @ gradient.reshape(B, gradient.shape[1], -1).swapaxes(1, 2)

        for layer in range(config.n_layer):
            columns, mlp = graph.of_attention(config, layer), graph.of_mlp(config, layer)
            add(graph.before_attention(config, layer), columns, received.attention(layer, some))
            gradient = received.stream(f"blocks.{layer}.ln2.in", some)
            add(graph.before_mlp(config, layer), slice(mlp, mlp + 1), gradient)
        add(flat.shape[1], slice(-1, None), received.stream("ln_final.in", some))
    return scores


def differences(model: Model, clean: ActivationCache, corrupted: ActivationCache, some: slice) -> Array:
    """Return each sender's output in the clean run minus that in the corrupted one: (b, S, t, D)."""
    config = model.config
    parts = [(clean["embed"][:, some] - corrupted["embed"][:, some])[:, None]]
    for layer in range(config.n_layer):
        z = clean["z", layer][:, some] - corrupted["z", layer][:, some]
        parts.append(head_results(z, model.params.h[layer].attn.c_proj).swapaxes(1, 2))
        parts.append((clean["mlp_out", layer][:, some] - corrupted["mlp_out", layer][:, some])[:, None])
    return np.concatenate(parts, axis=1)
