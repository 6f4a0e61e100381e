"""``gpt2-np internals circuits``: what the weights alone say of the heads."""

from __future__ import annotations

from pathlib import Path

import click

from ..system.files import JSONObject
from .internals import draw, experiment, show
from .options import grouped
from .plain import dumps
from .readable import load_readable


@experiment("circuits", "Find heads that copy or match, and show in words what a head reads and writes.")
@grouped(
    "Head",
    "--kind",
    type=click.Choice(["ov", "qk"]),
    default="ov",
    show_default=True,
    help="Show what heads write (OV), or what they look for (QK).",
)
@grouped("Head", "--layer", type=int, help="The layer of the one head to show, counted from 0.")
@grouped("Head", "--head", type=int, help="The number of the one head to show, counted from 0.")
@grouped(
    "Output",
    "--count",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="The number of directions of one head.",
)
def circuits(
    kind: str, layer: int | None, head: int | None, count: int, out: Path | None, as_json: bool, model: str, dtype: str
) -> None:
    """Show the eigenvalue score of every head's OV circuit (does the head raise what it attends to?) or QK circuit
    (does it attend to copies of its own token?). For one head, show its strongest singular directions in words."""
    from ..internals import circuits as science
    from ..internals import processing

    gpt2 = load_readable(model, dtype)
    params, config = processing.fold_ln(gpt2.params), gpt2.config
    if layer is None and head is None:
        measure, title = {
            "ov": (science.copying_scores, "Copying scores (OV eigenvalues)"),
            "qk": (science.matching_scores, "Matching scores (QK eigenvalues)"),
        }[kind]
        scores = measure(params, config)
        show(scores, as_json, row="layer", column="head")
        draw(out, lambda plots: plots.head_scores(scores, title=title))
        return
    if layer is None or head is None:
        raise ValueError("--layer and --head go together: give both, or neither for every head's score")
    name = kind.upper()
    directions = science.singular_directions(params, config, layer, head, kind=name, count=count)
    ends = ("reads", "raises") if kind == "ov" else ("stands on", "looks for")
    rows: list[JSONObject] = [
        {"strength": one.strength}
        | {end: gpt2.tokenizer.tokens(ids) for end, ids in zip(ends, (one.tokens_in, one.tokens_out), strict=True)}
        for one in directions
    ]
    if as_json:
        print(dumps({"layer": layer, "head": head, "kind": kind, "directions": rows}))
    else:
        for row in rows:
            for end, strength in zip(ends, (f"{row['strength']:.3f}", ""), strict=True):
                print(f"{strength:>8}  {end:<9} {' '.join(map(repr, row[end]))}")
    circuit = science.full_ov_circuit if kind == "ov" else science.full_qk_circuit
    values = circuit(params, config, layer, head).eigenvalues()
    draw(out, lambda plots: plots.eigenvalues(values, title=f"{name} eigenvalues of layer {layer}, head {head}"))
