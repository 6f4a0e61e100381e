"""``gpt2-np internals backward``: what learning an answer would write into the MLPs, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from .internals import draw, experiment
from .options import grouped
from .plain import dumps
from .readable import bos_option, load_readable


@experiment("backward", "Show in words what a gradient would write into the MLPs.")
@click.argument("prompt")
@bos_option
@grouped("Measure", "--answer", required=True, help="The token that is to be learned after the prompt.")
@grouped(
    "Output",
    "--count",
    type=click.IntRange(min=1),
    default=6,
    show_default=True,
    help="The number of words to show for each layer.",
)
def backward(
    prompt: str, bos: bool, answer: str, count: int, out: Path | None, as_json: bool, model: str, dtype: str
) -> None:
    """The backward lens: for each layer, show the position at which its MLP would change most if --answer were learned
    after PROMPT, the words that would be written there, and the words that would recall them."""
    from ..gradients.metrics import cross_entropy
    from ..internals.backward_lens import backward_lens

    gpt2 = load_readable(model, dtype)
    ids = [*gpt2.to_ids(prompt, prepend_bos=bos), gpt2.to_single_token(answer)]
    labels = np.full((1, len(ids)), -100)
    labels[0, -1] = ids[-1]
    found = backward_lens(gpt2, ids, cross_entropy(labels))
    tokens = gpt2.tokenizer.tokens(ids)
    written, heard = (each.top(count)[0] for each in (found.written, found.heard))
    rows: list[dict[str, Any]] = []
    for layer, strength in enumerate(found.strength):
        at = int(strength.argmax())
        words = {
            name: gpt2.tokenizer.tokens(best[layer, at].tolist())
            for name, best in (("writes", written), ("hears", heard))
        }
        rows.append(
            {"layer": layer, "position": at, "token": tokens[at], "strength": round(float(strength[at]), 6), **words}
        )
    if as_json:
        print(dumps({"loss": round(found.value, 6), "layers": rows}))
    else:
        print(f"loss: {found.value:.4f}")
        for row in rows:
            print(f"{row['layer']:>3} at {row['token']!r}: writes {' '.join(map(repr, row['writes']))}")
            print(f"{'':>3}    hears {' '.join(map(repr, row['hears']))}")
    draw(
        out,
        lambda plots: plots.lens(
            found.written, tokens, gpt2.tokenizer.decode, title=f"What learning {answer!r} writes"
        ),
    )
