"""``gpt2-np internals attribute`` and ``… edges``: who did it, by activation, by token and by edge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .internals import draw, experiment, metric_of, of_activations, show
from .options import grouped
from .pairs import Asked, asked, check_source, needed, pairs_option, question
from .plain import dumps
from .progress import bar
from .readable import bos_option, load_readable

if TYPE_CHECKING:
    from ..internals.attribution import Edges, Nodes
    from ..text.gpt2 import GPT2

Array = np.ndarray
OF_NODES = ("atp", "atp*", "relp")
OF_INPUTS = ("saliency", "input_x_gradient", "integrated_gradients", "occlusion", "attention_rollout")
OF_EDGES = ("eap", "eap-ig", "eap-ig-activations", "relp")
WIDTH = 40  # of the longest bar


@experiment("attribute", "Attribute an answer to tokens or to activations.")
@click.argument("prompt", required=False)
@click.argument("corrupted", required=False)
@pairs_option
@bos_option
@grouped(
    "Attribution",
    "--method",
    type=click.Choice([*OF_INPUTS, *OF_NODES]),
    help="How to attribute to tokens or, with CORRUPTED or --pairs, to activations.  [default: saliency, or atp]",
)
@grouped("Attribution", "--steps", default=50, show_default=True, help="The number of steps of integrated_gradients.")
@of_activations("Attribution", "Give one score for each of these, for activations.")
def attribute(
    prompt: str | None,
    corrupted: str | None,
    pairs: Path | None,
    answer: str | None,
    versus: str | None,
    bos: bool,
    method: str | None,
    steps: int,
    point: str,
    over: str,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Attribute the answer's log-probability (or, with --versus, the logit difference) to the tokens of PROMPT.

    With a CORRUPTED prompt of as many tokens, attribute it to the activations of PROMPT: one gradient estimates
    `internals patch` for all layers and positions at once. With --pairs, show the mean over a file of pairs and the
    standard deviation; pairs of different lengths need --over head or layer.

    \b
    gpt2-np internals task possessives --pairs > pairs.jsonl
    gpt2-np internals attribute --pairs pairs.jsonl --point attn.z --over head
    """
    check_source((prompt, corrupted), pairs)
    alone = corrupted is None and pairs is None
    method = method or ("saliency" if alone else "atp")
    if (method in OF_NODES) is alone:
        needs = "a corrupted prompt as well" if alone else "one prompt, not a corrupted one beside it"
        raise ValueError(f"--method {method} needs {needs}")
    gpt2 = load_readable(model, dtype)
    if alone and prompt is not None:
        right = needed(answer)
        metric = metric_of(gpt2, right, versus)
        scores_of_tokens(gpt2, prompt, metric, method, steps, bos, question(right, versus), as_json, out)
    else:
        of = asked(gpt2, (prompt, corrupted), answer, versus, pairs)
        scores_of_activations(gpt2, of, method, point, over, bos, as_json, out)


def scores_of_tokens(
    gpt2: GPT2,
    prompt: str,
    metric: Any,
    method: str,
    steps: int,
    bos: bool,
    title: str,
    as_json: bool,
    out: Path | None,
) -> None:
    """Bars over the prompt's tokens, or their scores as JSON."""
    from ..internals import attribution

    with bar(0, "run") as progress:
        found = attribution.inputs(gpt2, prompt, metric, method, steps, prepend_bos=bos, progress=progress.update)
    tokens = gpt2.tokenizer.tokens(found.ids.tolist())
    sums = {"value": found.value}
    if method == "integrated_gradients":
        sums |= {"baseline": found.baseline, "error": found.error}
    if as_json:
        print(dumps({"method": method, "tokens": tokens, "scores": found.scores.tolist()} | sums))
    else:
        for name, value in sums.items():
            print(f"{name}: {value:.4f}")
        print("\n".join(bars(tokens, found.scores)))

    def picture(plots: Any) -> Any:
        from ..internals import plots_attribution

        return plots_attribution.tokens({method: found.scores}, tokens, title=title)

    draw(out, picture)


def bars(tokens: Sequence[str], scores: Array) -> list[str]:
    """A line a token with its score and a bar: to the right where it raises the metric, to the left where it lowers."""
    from ..internals.labels import visible

    words = [visible(token) for token in tokens]
    widest, largest = max(map(len, words)), float(np.abs(scores).max()) or 1.0
    lengths = [round(WIDTH * abs(float(score)) / largest) for score in scores]
    left = max((length for length, score in zip(lengths, scores, strict=True) if score < 0), default=0)
    return [
        f"{word:>{widest}} {score:>9.4f} "
        + (f"{'▒' * length:>{left}}│" if score < 0 else f"{'':>{left}}│{'█' * length}").rstrip()
        for word, score, length in zip(words, scores, lengths, strict=True)
    ]


def scores_of_activations(
    gpt2: GPT2, of: Asked, method: str, point: str, over: str, bos: bool, as_json: bool, out: Path | None
) -> None:
    """A table of layers by positions or heads; for a file of pairs, one of the mean and one of the spread."""
    from ..internals import attribution

    with bar(of.count or 0, "pair") as progress:
        found = attribution.nodes(
            gpt2,
            of.clean,
            of.corrupted,
            of.metric,
            method,
            names=f"blocks.*.{point}",
            over=over,
            prepend_bos=bos,
            progress=progress.update,
        )
    values, spread = (np.atleast_2d(found.stack(point, side).T).T for side in ("scores", "spread"))
    labels = words_at(gpt2, of, bos) if over == "position" else [over] if over == "layer" else None
    about: dict[str, Any] = {"method": method, "point": point} | means(found, of)
    axes: dict[str, Any] = {"row": "layer", "column": over, "labels": labels}
    if as_json:
        about |= {"spread": np.round(spread, 6).tolist()} if of.count else {}
        show(values, True, **axes, **about)
    else:
        show(values, False, **axes, **about)
        if of.count:
            show(spread, False, **axes, **{"standard deviation over": f"{of.count} pairs"})
    title = f"{method} of {point}" + (f", mean of {of.count} pairs" if of.count else "")
    bar_title = "estimated change of the metric"
    draw(out, lambda plots: plots.heat(values, title=title, x=over, y="layer", x_labels=labels, bar=bar_title))


def means(found: Nodes | Edges, of: Asked) -> dict[str, Any]:
    """The metric of the clean and the corrupted runs, and how many pairs a file has."""
    both = {"clean": float(found.clean.mean()), "corrupted": float(found.corrupted.mean())}
    return both | ({} if of.count is None else {"pairs": of.count})


def words_at(gpt2: GPT2, of: Asked, bos: bool) -> list[str]:
    """A label for each position: the corrupted prompt's token, or the position where those of several pairs differ."""
    from ..internals.attribution.pairs import ids_of, is_several
    from ..internals.labels import visible

    prompts: Any = of.corrupted if is_several(of.corrupted) else [of.corrupted]
    ids = np.stack([ids_of(gpt2, one, prepend_bos=bos) for one in prompts])
    words = [visible(token) for token in gpt2.tokenizer.tokens(ids[0].tolist())]
    return [word if (ids[:, at] == ids[0, at]).all() else str(at) for at, word in enumerate(words)]


@experiment("edges", "Attribute an answer to edges between heads, MLPs and logits, and extract a circuit.")
@click.argument("clean", required=False)
@click.argument("corrupted", required=False)
@pairs_option
@bos_option
@grouped(
    "Attribution",
    "--method",
    type=click.Choice(OF_EDGES),
    default="eap",
    show_default=True,
    help="The method of attribution.",
)
@grouped("Attribution", "--steps", default=5, show_default=True, help="The number of steps of eap-ig.")
@grouped(
    "Circuit",
    "--circuit",
    "count",
    type=click.IntRange(min=0),
    help="Run the circuit of this many edges with the largest scores.",
)
@grouped(
    "Circuit", "--threshold", type=float, help="Run the circuit of all edges whose scores are at least this large."
)
@grouped(
    "Circuit",
    "--ablation",
    type=click.Choice(["corrupted", "mean", "zero"]),
    default="corrupted",
    help="What edges outside the circuit carry.",
)
@grouped("Circuit", "--curve", "with_curve", is_flag=True, help="Measure the faithfulness of circuits of every size.")
@grouped("Circuit", "--save", type=click.Path(path_type=Path), help="Write the circuit as JSON, in EAP-IG's format.")
@grouped(
    "Output", "--top", type=click.IntRange(min=1), default=20, show_default=True, help="The number of edges to list."
)
def edges(
    clean: str | None,
    corrupted: str | None,
    pairs: Path | None,
    answer: str | None,
    versus: str | None,
    bos: bool,
    method: str,
    steps: int,
    count: int | None,
    threshold: float | None,
    ablation: str,
    with_curve: bool,
    save: Path | None,
    top: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Score each edge of the computation by how much of the CLEAN prompt's answer it carries, beside the CORRUPTED one.

    An edge leads from the embedding, a head (a3.h7 is layer 3, head 7) or an MLP (m3) to a later head's query, key or
    value, to an MLP, or to the logits. With --circuit or --threshold the model runs with these edges only, and
    everything else is as in the corrupted run; a faithfulness of 1 means that the circuit is as good as the whole
    model. --out draws the circuit (of --top edges if none was asked for) or, with --curve, the curve. With --pairs all
    figures are means over a file of pairs, of any lengths, and each edge also has its standard deviation.

    \b
    gpt2-np internals task possessives --count 20 --pairs | gpt2-np internals edges --pairs - --circuit 100
    """
    from ..internals import attribution

    check_source((clean, corrupted), pairs)
    if count is not None and threshold is not None:
        raise ValueError("give --circuit, a number of edges, or --threshold, a size of score, not both")
    if save is not None and count is None and threshold is None:
        raise ValueError("--save writes a circuit: ask for one with --circuit or --threshold")
    gpt2 = load_readable(model, dtype)
    of = asked(gpt2, (clean, corrupted), answer, versus, pairs)
    with bar(of.count or 0, "pair") as progress:
        found = attribution.edges(
            gpt2, of.clean, of.corrupted, of.metric, method, steps, prepend_bos=bos, progress=progress.update
        )
    wanted = count is not None or threshold is not None
    circuit = found.circuit(count if threshold is None else None, threshold=threshold) if wanted else None
    about: dict[str, Any] = {"method": method} | means(found, of)
    if circuit is not None:
        about |= {"edges": len(circuit), "faithfulness": circuit.faithfulness(ablation)}
        if save is not None:
            circuit.to_json(save)
    curve = attribution.curve(found, ablation=ablation) if with_curve else None
    report(found, about, curve, top, as_json, with_spread=of.count is not None)

    def picture(plots: Any) -> Any:
        from ..internals import plots_attribution

        if curve is not None:
            return plots_attribution.curves({method: curve}, title=of.title)
        return plots_attribution.circuit(circuit or found.circuit(top), title=of.title)

    draw(out, picture)


def report(
    found: Edges, about: dict[str, Any], curve: Any, top: int, as_json: bool, *, with_spread: bool = False
) -> None:
    """The best edges, the circuit's size and faithfulness, and the curve."""
    best: list[dict[str, Any]] = [
        {"from": sender, "to": receiver, "score": score} for sender, receiver, score in found.top(top)
    ]
    for edge in best if with_spread else []:
        place = found.senders.index(edge["from"]), found.receivers.index(edge["to"])
        edge["spread"] = float(found.spread[place])
    if as_json:
        if curve is not None:
            about["curve"] = {
                "shares": curve.shares.tolist(),
                "edges": curve.edges.tolist(),
                "faithfulness": [None if np.isnan(one) else float(one) for one in curve.faithfulness],
                "cpr": None if np.isnan(curve.cpr) else curve.cpr,
                "cmd": None if np.isnan(curve.cmd) else curve.cmd,
            }
        about = {name: None if value != value else value for name, value in about.items()}
        print(dumps(about | {"top": best}))
        return
    for name, value in about.items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    for edge in best:
        deviation = f" ± {edge['spread']:.4f}" if with_spread else ""
        print(f"{edge['score']:>10.4f}{deviation}  {edge['from']} → {edge['to']}")
    if curve is not None:
        for share, size, value in zip(curve.shares, curve.edges, curve.faithfulness, strict=True):
            print(f"{share:>8.1%} of the edges, {size:>6} left: faithfulness {value:.3f}")
        print(f"CPR {curve.cpr:.4f}, CMD {curve.cmd:.4f}")
