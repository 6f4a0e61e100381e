"""Activation patching and path patching: which activations carry the difference between two prompts.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT"; Wang et al. 2022, "Interpretability in the Wild"
(path patching, section 3.1); Heimersheim & Nanda 2024, "How to use and interpret activation patching".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..display import NUMBERS, Cell, Texts, boxed, described, heat, number, table
from ..model import ops
from ..model.activations import ActivationCache
from ..model.edits import AnyEdit, Part
from ..model.params import as_array
from ..model.taps import BLOCK_POINTS, canonical, nearest
from ..session.model import Model
from .attribution.pairs import Pairs, Prompts, pairs_of
from .variants import Metric, Variant, grid, in_ids, of_row, run_variants

Array = np.ndarray
Ids = Sequence[int] | Array
RECEIVERS = ("attn.q", "attn.k", "attn.v", "mlp.pre", "unembed")


@dataclass(frozen=True, repr=False)
class Patching:
    """A sweep: `scores` are the metric of the corrupted run with one activation from the clean run, over `axes`.

    `clean` and `corrupted` are the metric of the two runs as they are. Of several pairs of prompts, all three are means
    over them, and `spread` is the scores' standard deviation (of the population; 0 for one pair). `ids` are those of
    the corrupted prompt where there is one, for the names of positions.
    """

    scores: Array
    axes: tuple[str, ...]
    clean: float
    corrupted: float
    spread: Array | float = 0.0
    ids: Array | None = field(default=None, repr=False, compare=False)
    texts: Texts = field(default=NUMBERS, repr=False, compare=False)

    @property
    def restored(self) -> Array:
        """The share of the difference that each patch brings back: 0 as corrupted, 1 as clean. NaN if there is none."""
        difference = self.clean - self.corrupted
        return np.full_like(self.scores, np.nan) if difference == 0 else (self.scores - self.corrupted) / difference

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        title = (
            f"Patching: the metric is {self.clean:.3g} in the clean run and {self.corrupted:.3g} in the corrupted one"
        )
        legend = "of the difference that the clean run's activation restores"
        values, over = self.restored, self.axes[-1]
        if values.ndim > 2:
            order = np.argsort(-np.nan_to_num(np.abs(values)), axis=None, kind="stable")[:12]
            places = [np.unravel_index(number, values.shape) for number in order]
            cells = [Cell(number(float(values[place])), float(values[place])) for place in places]
            rows = [(*map(int, place), cell) for place, cell in zip(places, cells, strict=True)]
            return boxed(table(rows, head=[*self.axes, "restored"]), title=title, note=f"The largest shares {legend}.")
        values = np.atleast_2d(values)
        columns = [str(one) for one in range(values.shape[1])]
        if over == "position" and self.ids is not None:
            columns = self.texts(self.ids)
        layers = ["restored"] if len(self.axes) == 1 else [f"layer {layer}" for layer in range(len(values))]
        legend = f"the share {legend}"
        return heat(values, rows=layers, columns=columns, corner=over, title=title, legend=legend, most=1.0)


def activation_patch(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    metric: Metric,
    *,
    point: str = "resid_pre",
    over: str = "position",
    batch: int = 32,
    prepend_bos: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Patching:
    """Put one activation of the clean run into the corrupted run, for every layer and place, and measure.

    `point` is an activation of a block ("resid_pre", "attn_out", "mlp_out", "attn.z", "attn.pattern", …). `over` is
    what a single patch covers: "layer" the whole activation, (L,) scores; "position" one position, (L, T); "head" one
    head at all positions, (L, H); "head position" one head at one position, (L, H, T).

    A prompt is a text or ids (`Model.to_ids`, with `prepend_bos`). Two equally long lists of prompts are pairs, which
    may differ in length where no axis is positions: the result is the mean over them. A metric whose tokens are one a
    row gives each pair its own. ``ValueError``, before anything runs, for pairs of unequal lengths.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.gradients import logit_difference
        >>> from gpt2_np.internals.patching import activation_patch
        >>> metric = logit_difference(" queen", " king")
        >>> activation_patch(model, "The king and the", "The queen and the", metric).scores.shape
        (8, 4)
    """
    point = _block_point(point)
    pairs = pairs_of(model, clean, corrupted, prepend_bos=prepend_bos)
    lengths = sorted({len(row) for row in pairs.clean})
    sizes = {"layer": model.config.n_layer, "head": model.config.n_head, "position": lengths[0]}
    axes = ("layer", *(() if over == "layer" else over.split()))
    if axes not in (("layer",), ("layer", "position"), ("layer", "head"), ("layer", "head", "position")):
        raise ValueError(f"over must be 'layer', 'position', 'head' or 'head position', got {over!r}")
    if "position" in axes and len(lengths) > 1:
        raise ValueError(f"over {over!r} needs pairs of one length, got {', '.join(map(str, lengths))} tokens")

    def of_pair(one: Ids, other: Ids, measure: Metric) -> Found:
        from_clean, better, worse = _both_runs(model, one, other, measure, [f"blocks.*.{point}"])
        variants: list[Variant] = []
        for index in grid(*(sizes[axis] for axis in axes)):
            place = dict(zip(axes, index, strict=True))
            name = f"blocks.{place['layer']}.{point}"
            variants.append({name: Part(from_clean[name], place.get("position"), place.get("head"))})
        scores = run_variants(model, other, variants, measure, batch=batch, progress=progress)
        return scores.reshape([sizes[axis] for axis in axes]), better, worse

    return _averaged(pairs, metric, model, axes, of_pair)


def path_patch(
    model: Model,
    clean: Prompts,
    corrupted: Prompts,
    metric: Metric,
    receivers: Sequence[tuple[str, int | None]],
    *,
    batch: int = 32,
    prepend_bos: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Patching:
    """Patch what each head says *directly* to the receivers, every other path left as it was: (L, H) scores.

    A receiver is a point and a head: ``("blocks.3.attn.q", 5)``; or ``("blocks.3.mlp.pre", None)``; or
    ``("unembed", None)`` for the logits themselves. The stream is a sum, so the receivers' input with one sender
    exchanged is the corrupted stream + what the sender wrote in the clean run − what it wrote in the corrupted one;
    no run is needed to find it. Heads that write after a receiver read have no path to it: their score stays.
    Prompts, and lists of them, are as in `activation_patch`.
    """
    L, H = model.config.n_layer, model.config.n_head
    wanted = [(canonical(point), head) for point, head in receivers]
    for point, head in wanted:
        _check_receiver(model, point, head)
    names = ["blocks.*.resid_pre", "blocks.*.resid_mid", "blocks.*.attn.z", f"blocks.{L - 1}.resid_post"]

    def of_pair(one: Ids, other: Ids, measure: Metric) -> Found:
        from_clean, better, worse = _both_runs(model, one, other, measure, names)
        _, from_corrupted = model.run_with_cache(np.atleast_2d(other), names)
        variants: list[Variant] = []
        for layer in range(L):
            change = from_clean.head_result(layer) - from_corrupted.head_result(layer)
            for head in range(H):
                variants.append(_received(model, from_corrupted, wanted, layer, change[:, :, head]))
        scores = run_variants(model, other, variants, measure, batch=batch, progress=progress)
        return scores.reshape(L, H), better, worse

    pairs = pairs_of(model, clean, corrupted, prepend_bos=prepend_bos)
    return _averaged(pairs, metric, model, ("layer", "head"), of_pair)


Found = tuple[Array, float, float]  # the scores of one pair, and the metric of its clean and its corrupted run


def _averaged(
    pairs: Pairs, metric: Metric, model: Model, axes: tuple[str, ...], of_pair: Callable[[Ids, Ids, Metric], Found]
) -> Patching:
    """The mean over pairs, each measured by the metric's own row where there are several."""
    metric, several = in_ids(metric, model), len(pairs) > 1
    rows = enumerate(zip(pairs.clean, pairs.corrupted, strict=True))
    found = [of_pair(one, other, of_row(metric, at) if several else metric) for at, (one, other) in rows]
    scores = np.stack([scores for scores, _, _ in found])
    before, after = (float(np.mean([one[end] for one in found])) for end in (1, 2))
    ids = pairs.corrupted[0] if len(pairs) == 1 else None
    return Patching(scores.mean(axis=0), axes, before, after, scores.std(axis=0), ids, model.texts)


def _received(
    model: Model, cache: ActivationCache, receivers: Sequence[tuple[str, int | None]], sender: int, change: Array
) -> dict[str, AnyEdit]:
    """Return what the receivers compute once `change` is added to the stream after layer `sender`'s attention."""
    params, epsilon, D = model.params, model.config.layer_norm_epsilon, model.config.n_embd
    heads: dict[str, list[int]] = {}
    for point, head in receivers:
        heads.setdefault(point, []).append(-1 if head is None else head)
    results: dict[str, AnyEdit] = {}
    for point, chosen in heads.items():
        if point == "unembed":
            x = cache["resid_post", model.config.n_layer - 1] + change
            results[point] = ops.unembed(ops.layer_norm(x, *params.ln_f, epsilon), params.lm_head)
            continue
        layer = int(point.split(".")[1])
        block = params.h[layer]
        if point.endswith("mlp.pre") and layer >= sender:
            x = ops.layer_norm(cache["resid_mid", layer] + change, *block.ln_2, epsilon)
            results[point] = ops.linear(x, *block.mlp.c_fc)
        elif not point.endswith("mlp.pre") and layer > sender:
            x = ops.layer_norm(cache["resid_pre", layer] + change, *block.ln_1, epsilon)
            part = "qkv".index(point[-1])
            columns = slice(part * D, (part + 1) * D)
            array = x @ as_array(block.attn.c_attn.weight)[:, columns] + block.attn.c_attn.bias[columns]
            results[point] = Part(array.reshape(*array.shape[:2], model.config.n_head, -1), heads=chosen)
    return results


def _both_runs(
    model: Model, clean: Ids, corrupted: Ids, metric: Metric, names: Sequence[str]
) -> tuple[ActivationCache, float, float]:
    """Return what the clean run leaves behind, and the metric of both."""
    logits, cache = model.run_with_cache(np.atleast_2d(clean), names)
    other = model.run_with_cache(np.atleast_2d(corrupted), [])[0]
    return cache, float(metric(logits)[0]), float(metric(other)[0])


def _block_point(point: str) -> str:
    name = canonical(f"blocks.0.{point}").removeprefix("blocks.0.")
    if name not in BLOCK_POINTS:
        raise ValueError(f"no activation of a block is named {point!r}; the nearest is {nearest(name, BLOCK_POINTS)!r}")
    return name


def _check_receiver(model: Model, point: str, head: int | None) -> None:
    known = [f"blocks.{layer}.{name}" for layer in range(model.config.n_layer) for name in RECEIVERS[:4]] + ["unembed"]
    if point not in known:
        raise ValueError(
            f"a receiver must be a block's {', '.join(RECEIVERS[:4])} or unembed, got {point!r}; "
            f"the nearest is {nearest(point, known)!r}"
        )
    if point.endswith((".q", ".k", ".v")):
        if head is None or not 0 <= head < model.config.n_head:
            raise ValueError(f"the receiver {point} needs a head between 0 and {model.config.n_head - 1}, got {head}")
    elif head is not None:
        raise ValueError(f"the receiver {point} has no heads, got head {head}")
