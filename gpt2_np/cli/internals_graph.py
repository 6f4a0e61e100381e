"""``gpt2-np internals graph``: how a prompt's features make each other and an answer, with a transcoder a layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .internals import answers, check_picture, draw, experiment
from .internals_corpus import CORPUS
from .options import FC, grouped
from .pairs import question
from .plain import dumps
from .progress import bar
from .readable import bos_option, load_readable

if TYPE_CHECKING:
    from ..internals.dictionaries.graph import Graph
    from ..internals.dictionaries.graph_effects import Silenced


def transcoders_option(required: bool) -> Callable[[FC], FC]:
    """--transcoders."""
    return grouped(
        "Transcoders",
        "--transcoders",
        type=CORPUS,
        required=required,
        metavar="FOLDER",
        help="A folder with a transcoder's folder for each layer.",
    )


def size_options(function: FC) -> FC:
    """--features and --silence."""
    for option in (
        grouped("Graph", "--silence", type=click.IntRange(min=0), default=200, show_default=True, metavar="N",
                help="Silence this many features one by one, to check the graph's predictions."),
        grouped("Graph", "--features", "most", type=click.IntRange(min=1), default=40, show_default=True,
                help="Prune the graph to this many features."),
    ):  # fmt: skip
        function = option(function)
    return function


@experiment("graph", "Trace how a prompt's features cause each other and the answer.")
@click.argument("prompt")
@answers
@bos_option
@transcoders_option(True)
@size_options
@grouped(
    "Graph",
    "--position",
    type=int,
    default=-1,
    show_default=True,
    help="The position in the prompt whose next token is meant; -1 is the last.",
)
@grouped(
    "Output",
    "--scatter",
    type=click.Path(path_type=Path),
    callback=check_picture,
    help="Draw predicted against measured effects into this file.",
)
@grouped(
    "Output", "--top", type=click.IntRange(min=1), default=15, show_default=True, help="The number of features to list."
)
def graph(
    prompt: str,
    answer: str,
    versus: str | None,
    bos: bool,
    transcoders: Path,
    silence: int,
    most: int,
    position: int,
    scatter: Path | None,
    top: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Build the attribution graph of the answer's logit (or of its difference to --versus) after PROMPT.

    Its nodes are tokens, the features of each layer's transcoder that fire, and the transcoders' errors. Attention
    patterns and the norms' scales are held constant, so a feature's pre-activation is a sum of one number for each
    earlier node and a bias. --out draws the graph, pruned to the --features with the most influence on the answer.

    \b
    gpt2-np internals graph "The queen lost" --answer " her" --versus " his" --bos --transcoders FOLDER
    """
    from ..internals import dictionaries
    from ..internals.dictionaries import graph as graphs
    from ..internals.dictionaries.graph_effects import silence as run

    if scatter is not None and not silence:
        raise ValueError("--scatter shows features that were silenced: --silence must be at least 1")
    layers = dictionaries.load_layers(transcoders)
    gpt2 = load_readable(model, dtype)
    right, other = gpt2.to_single_token(answer), None if versus is None else gpt2.to_single_token(versus)
    whole = graphs.graph(gpt2, layers, prompt, right, other, position=position, prepend_bos=bos)
    with bar(min(silence, len(whole.activations)), "run") as progress:
        done = run(gpt2, layers, whole, silence, progress=progress.update) if silence else None
    tokens = gpt2.tokenizer.tokens(whole.ids.tolist())
    some = whole.pruned(most)
    told = about(whole, some, done)
    rows = listed(whole, done, tokens)
    if as_json:
        edges = [
            {"from": node(some.sources[source]), "to": node(some.targets[target]), "adds": weight, "share": flow}
            for target, source, weight, flow in some.strongest(some.edges.size)
        ]
        print(dumps(told | {"tokens": tokens, "features_by_influence": rows, "edges": edges}))
    else:
        print("\n".join(in_lines(told, rows[:top])))
    title = question(answer, versus)
    draw(out, lambda plots: pictures().graph(some, tokens, title=title))
    draw(scatter, lambda plots: pictures().silenced(done, title=title))


def pictures() -> Any:
    """The module that draws graphs."""
    from ..internals import plots_graph

    return plots_graph


def node(one: tuple[str, int, int, int]) -> dict[str, Any]:
    """A node as JSON says it: its kind, and what else it has of layer, position, and number of feature or token."""
    return {"kind": one[0]} | {
        name: value for name, value in zip(("layer", "position", "number"), one[1:], strict=True) if value >= 0
    }


def about(whole: Graph, some: Graph, done: Silenced | None) -> dict[str, Any]:
    """The sizes of a graph, how well its sums hold, what pruning kept, and whether it is true."""
    first, n = len(whole.ids), len(whole.activations)
    every = whole.influence()
    order = sorted(every[first : first + n], reverse=True)
    told: dict[str, Any] = {"value": float(whole.values[-1]), "features": n, "largest_gap": whole.gap()}
    told["kept"] = len(some.activations)
    told["kept_influence"] = float(sum(order[: len(some.activations)]) / sum(order)) if n else 1.0
    ends = {"token", "error"}
    shares = {kind: sum(x for x, one in zip(every, whole.sources, strict=True) if one[0] == kind) for kind in ends}
    told["leads_to_tokens"] = float(shares["token"] / (sum(shares.values()) or 1.0))
    if done is not None:
        correlation = done.correlation
        told |= {"silenced": len(done.which), "correlation": None if correlation != correlation else correlation}
    return told


def listed(whole: Graph, done: Silenced | None, tokens: list[str]) -> list[dict[str, Any]]:
    """The features by influence, with what the graph predicts of their silence and what was measured."""
    first, n = len(whole.ids), len(whole.activations)
    every, predicted = whole.influence()[first : first + n], whole.effects()
    measured = {} if done is None else dict(zip(done.which.tolist(), done.measured.tolist(), strict=True))
    rows = []
    for one in sorted(range(n), key=lambda at: -every[at]):
        _, layer, at, number = whole.targets[one]
        row = {"layer": layer, "position": at, "token": tokens[at], "feature": number}
        row |= {"activation": float(whole.activations[one]), "influence": float(every[one])}
        rows.append(row | {"predicted": float(predicted[one]), "measured": measured.get(one)})
    return rows


def in_lines(told: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """A graph for people to read."""
    from ..internals.labels import visible

    lines = [
        f"{told['value']:.4f}: {told['features']:,} features fire; edges and biases add up within "
        f"{told['largest_gap']:.1e}",
        f"of what leads back to a source, {told['leads_to_tokens']:.0%} leads to tokens and the rest to errors",
        f"pruned to {told['kept']} features, which have {told['kept_influence']:.0%} of all features' influence",
    ]
    if "silenced" in told:
        found = "none" if told["correlation"] is None else f"{told['correlation']:.3f}"
        lines.append(f"{told['silenced']} silenced one by one: correlation of predicted and measured {found}")
    lines.append(f"{'influence':>9} {'predicted':>9} {'measured':>9}  layer, token, feature")
    for row in rows:
        measured = "" if row["measured"] is None else f"{row['measured']:.3f}"
        lines.append(
            f"{row['influence']:>9.4f} {row['predicted']:>9.3f} {measured:>9}  "
            f"{row['layer']}, {visible(row['token'])} ({row['position']}), {row['feature']}"
        )
    return lines
