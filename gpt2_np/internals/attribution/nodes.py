"""Attribution by node: the effect of each activation of the clean run in the corrupted one, estimated by a gradient.

AtP: Nanda 2023, "Attribution Patching"; AtP*: Kramár et al. 2024, "AtP*: An efficient and scalable method for
localizing LLM behaviour to components"; RelP: Jafari et al. 2025, "RelP: Faithful and Efficient Circuit Discovery via
Relevance Patching".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...display import NUMBERS, Texts, described
from ...gradients.run import run_with_gradients
from ...model import ops
from ...model.forward import attention_scale
from ...model.taps import BLOCK_POINTS, canonical, nearest, no_tap, points, select
from ...session.model import Model
from .pairs import Pairs, Prompts, at_last, measure, of_rows, pairs_of, values
from .rules import Dropped, key_effect, query_effect, relevance
from .tables import node_table

Array = np.ndarray
METHODS = ("atp", "atp*", "relp")
SUMMED = ("D", "K", "V", "1")  # the letters of one vector, which is one node
TOKENS_PER_RUN = 512  # tokens in one run
STREAM = ("embed", "resid_pre", "resid_mid", "resid_post")  # part of no layer: no dropped layer removes them
OVER = {"layer": "", "position": "T", "head": "H", "head position": "HT"}  # which letters of a shape stay apart


@dataclass(frozen=True, eq=False, repr=False)
class Nodes:
    """The score of every node of the activations in `scores`, by their names: an estimate of the effect of patching it.

    A score is positive where the clean run's value moves the metric towards the clean run's. What is a vector over D or
    K is one node, everything else has one for each entry: ``"blocks.0.resid_pre"`` is (T,), ``"blocks.0.attn.z"``
    (T, H), ``"blocks.0.mlp.post"`` (T, F), ``"blocks.0.attn.pattern"`` (H, T, S). Of several pairs scores are the mean
    and `spread` the standard deviation (of the population; 0 for one pair). `clean` and `corrupted` are the metric of
    each pair's runs, (n,); `ids` are the corrupted prompt's where there is one pair, for the names of positions.
    With `over`, scores are sums over what it doesn't name: see `nodes`.
    """

    scores: Mapping[str, Array]
    spread: Mapping[str, Array]
    method: str
    clean: Array
    corrupted: Array
    ids: Array | None = field(default=None, repr=False, compare=False)
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)
    over: str | None = None

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return node_table(self)

    def stack(self, point: str, side: str = "scores") -> Array:
        """Return the scores of one point of every block: (L, …), or with `side` "spread" their spread.

        ``ValueError`` if a layer's are missing.
        """
        name = canonical(f"blocks.0.{point}").removeprefix("blocks.0.")
        name = next((one for one in BLOCK_POINTS if one == name or one.endswith(f".{name}")), name)
        layers = sorted(int(one.split(".")[1]) for one in self.scores if one.split(".", 2)[2:] == [name])
        if not layers or layers != list(range(len(layers))):
            known = sorted({one.split(".", 2)[2] for one in self.scores if one.startswith("blocks.")}) or BLOCK_POINTS
            raise ValueError(
                f"no scores of {point!r} for every layer; the nearest that there are is {nearest(name, known)!r}"
            )
        table = self.spread if side == "spread" else self.scores
        return np.stack([table[f"blocks.{layer}.{name}"] for layer in layers])


def nodes(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    metric: Any,
    method: str = "atp",
    *,
    names: str | Iterable[str] | None = None,
    over: str | None = None,
    prepend_bos: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Nodes:
    """Score every activation by (clean − corrupted) · ∂metric/∂activation, the gradient at the corrupted run.

    That is to first order what `patching.activation_patch` measures: the clean run's activation in the corrupted run.
    `clean` and `corrupted` are a text or ids each, or lists of them (with `prepend_bos`, texts begin with
    begin-of-text). `method`: "atp", the gradient itself; "atp*", which does the softmax of every exchanged query and
    key again, and takes in turn what each layer writes out of the gradient: the mean size of the estimates, with the
    sign of their sum (the paper has sizes alone); "relp", in which relevance rules take the gradient's place
    (`rules.Relevance`). `names` are activations as in `run_with_cache`; all but ``attn.result`` if None. `over` says
    what stays apart, as in `activation_patch`: "layer", "position", "head" or "head position", each pair's scores
    being summed over all else (every node by itself if None). `progress` is told the number of pairs that are done.

    ``ValueError``, before anything runs, for a metric without a derivative, a pair whose prompts have not equally many
    tokens, and for several pairs of which not all have as many, unless positions are summed over.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import logit_difference
        >>> from gpt2_np.internals import attribution
        >>> metric = logit_difference(" queen", " king")
        >>> clean, corrupted = "The king and the", "The queen and the"
        >>> found = attribution.nodes(model, clean, corrupted, metric, names="blocks.*.resid_pre")
        >>> found.scores["blocks.3.resid_pre"].shape
        (4,)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    metric = measure(metric, model)
    pairs = pairs_of(model, clean, corrupted, prepend_bos=prepend_bos)
    chosen, shapes = select(names, model.config), points(model.config)
    _check_over(over, {name: shapes[name] for name in chosen})
    lengths = sorted({len(row) for row in pairs.clean})
    if len(lengths) > 1 and (over is None or "T" in OVER[over]):
        raise ValueError(
            f"nodes have positions, so all pairs must have equally many tokens, got {lengths}; "
            "over 'layer' or 'head' sums over positions"
        )
    score = {"atp": plain, "atp*": star, "relp": plain}[method]
    rule = relevance(model) if method == "relp" else None
    table: dict[str, list[Array]] = {name: [] for name in chosen}
    measured, done = np.zeros((2, len(pairs))), []
    for rows, from_clean, from_corrupted in pairs.batches(TOKENS_PER_RUN):
        alone = of_rows(metric, rows, len(pairs))
        found, *measured[:, rows] = score(model, from_clean, from_corrupted, alone, chosen, rule)
        for name, x in found.items():
            table[name].append(_summed(np.asarray(x, np.float64), shapes[name], over))
        done.append(rows)
        if progress is not None:
            progress(len(rows))
    back = np.argsort(np.concatenate(done))  # pairs are taken by length
    each = {name: np.concatenate(parts)[back] for name, parts in table.items()}
    return gathered(each, method, [(measured[0], measured[1])], pairs, model, over)


def _check_over(over: str | None, shapes: Mapping[str, str]) -> None:
    """``ValueError`` for an `over` that isn't one, or whose axes an activation lacks."""
    if over is not None and over not in OVER:
        raise ValueError(f"over must be one of {', '.join(OVER)}, got {over!r}")
    for name, shape in shapes.items():
        if over is not None and "H" in OVER[over] and "H" not in shape.split():
            raise ValueError(f"over {over!r} needs activations that have heads, such as attn.z, got {name}")


def _summed(x: Array, shape: str, over: str | None) -> Array:
    """The scores of pairs, (b, …), summed over the axes that `over` doesn't keep apart; heads before positions."""
    if over is None:
        return x
    letters = shape.split()[1:]
    letters = letters[:-1] if letters[-1] in SUMMED else letters
    kept = [letter for letter in letters if letter in OVER[over]]
    x = x.sum(axis=tuple(1 + at for at, letter in enumerate(letters) if letter not in kept))
    return x.swapaxes(1, 2) if kept == ["T", "H"] else x


def gathered(
    each: Mapping[str, Array],
    method: str,
    measured: list[tuple[Array, Array]],
    pairs: Pairs,
    model: Model,
    over: str | None = None,
) -> Nodes:
    """Return the mean and the standard deviation over pairs of each pair's result, (n, …)."""
    before, after = (np.concatenate(side) for side in zip(*measured, strict=True))
    scores = {name: x.mean(axis=0) for name, x in each.items()}
    ids = pairs.corrupted[0] if len(pairs) == 1 else None
    spread = {name: x.std(axis=0) for name, x in each.items()}
    return Nodes(scores, spread, method, before, after, ids, model.texts, over)


def plain(
    model: Model, clean: Array, corrupted: Array, metric: Any, names: list[str], rule: Any
) -> tuple[dict[str, Array], Array, Array]:
    """Multiply difference by gradient, or with a `rule` by relevance: scores (b, …) and the metric of both runs.

    Both prompts of each pair go through the model side by side: short prompts take as long as the weights take to be
    read. Only the last position is unembedded where the metric reads no other. A model with edits has a run for each
    side, since its gradient runs differentiate all of their rows.
    """
    b, shapes = len(clean), points(model.config)
    before: Mapping[str, Array]
    after: Mapping[str, Array]
    if model.tap is no_tap:
        together = np.concatenate([clean, corrupted])
        last = at_last(metric) and not any(name.startswith(("ln_final", "unembed")) for name in names)
        run = run_with_gradients(
            model, together, metric, names, gradient_edits=rule, check=model.check_logits, after=b, last_only=last
        )
        logits = run.logits[:b]
        before, after = ({name: x[part] for name, x in run.cache.items()} for part in (slice(b), slice(b, None)))
    else:
        logits, before = model.run_with_cache(clean, names)
        run = model.run_with_gradients(corrupted, metric, names, gradient_edits=rule)
        after = run.cache
    scores = {name: product(before[name], after[name], run.grads[name], shapes[name]) for name in names}
    return scores, values(metric, logits, clean), np.asarray(run.value, np.float64)


def product(clean: Array, corrupted: Array, gradient: Array, shape: str) -> Array:
    """Return (clean − corrupted) · gradient, summed over each node's vector: (B, T, D) → (B, T), for example.

    Rows of the gradient may be a multiple of those of the activations: another gradient of the same ones each.
    """
    if len(gradient) != len(clean):
        clean, corrupted = np.repeat(clean, len(gradient), 0), np.repeat(corrupted, len(gradient), 0)
    hidden = np.isneginf(corrupted) if shape == "B H T S" else None  # a score of the future is −∞ in both
    with np.errstate(invalid="ignore"):
        difference = clean - corrupted
    if hidden is not None:
        difference = np.where(hidden, 0, difference)
    if shape.split()[-1] in SUMMED:
        return np.einsum("...d,...d->...", difference, gradient)
    found: Array = difference * gradient
    return found


# ---- AtP* -----------------------------------------------------------------------------------------------------------


def needed(names: list[str]) -> list[str]:
    """Return the activations of both runs that AtP* reads: also those that a pattern is computed from."""
    blocks = {name.rsplit(".", 1)[0] for name in names if name.endswith(("attn.q", "attn.k"))}
    return [*names, *(f"{block}.{part}" for block in sorted(blocks) for part in ("q", "k", "pattern", "attn_scores"))]


def star(
    model: Model, clean: Array, ids: Array, metric: Any, names: list[str], rule: Any
) -> tuple[dict[str, Array], Array, Array]:
    """AtP*: see `nodes`. Scores (b, …) and the metric of both runs.

    Each layer's output is dropped in a row of its own, as many side by side as a run may have tokens. A model of one
    layer has nothing left if that is dropped, so nothing is dropped there.
    """
    L, (B, T) = model.config.n_layer, ids.shape
    drops = np.arange(L) if L > 1 else np.array([-1])
    side = max(1, TOKENS_PER_RUN // T)
    logits, cache = model.run_with_cache(clean, needed(names))
    found: dict[str, list[Array]] = {name: [] for name in names}
    after = np.zeros(B)
    for pair in range(B):
        each: dict[str, list[Array]] = {name: [] for name in names}
        own = {name: x[pair : pair + 1] for name, x in cache.items()}
        for start in range(0, len(drops), side):
            some = drops[start : start + side]
            alone = of_rows(metric, np.full(len(some), pair), B)
            run = model.run_with_gradients(
                np.repeat(ids[pair : pair + 1], len(some), 0), alone, needed(names), gradient_edits=Dropped(some)
            )
            after[pair] = run.value[0]
            for name in names:
                each[name].append(_again(model, name, own, run))
        for name in names:
            x = np.concatenate(each[name]).astype(np.float64)
            seen = len(x) - (len(drops) > 1 and _within_a_layer(name))
            found[name].append(np.sign(x.sum(axis=0)) * np.abs(x).sum(axis=0) / seen)
    return {name: np.stack(parts) for name, parts in found.items()}, values(metric, logits, clean), after


def _within_a_layer(name: str) -> bool:
    return name.startswith("blocks.") and not name.endswith(STREAM)


def _again(model: Model, name: str, clean: Mapping[str, Array], run: Any) -> Array:
    """Compute AtP of one activation with the gradients of several runs, (rows, …); the softmax of queries and keys is
    recomputed.
    """
    corrupted = run.cache[name][:1]
    if not name.endswith(("attn.q", "attn.k")):
        return product(clean[name], corrupted, run.grads[name], points(model.config)[name])
    block, part = name.rsplit(".", 1)
    scale = attention_scale(model.config, int(name.split(".")[1]))
    q, k = (run.cache[f"{block}.{letter}"][:1] for letter in "qk")
    q, k = (clean[name], k) if part == "q" else (q, clean[name])
    exchanged = ops.attention_scores(q, k.swapaxes(1, 2), np.zeros(1, np.int64), scale)
    gradient, pattern = run.grads[f"{block}.pattern"], run.cache[f"{block}.pattern"][:1]
    if part == "q":
        return query_effect(gradient, pattern, exchanged)
    before = run.cache[f"{block}.attn_scores"][0].astype(np.float64)
    return key_effect(gradient, pattern[0], before, exchanged[0])
