"""``gpt2-np internals patchscope`` and ``function-vector``: states and directions carried from prompt to prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from .internals import draw, experiment, show
from .options import grouped
from .plain import dumps
from .progress import bar
from .readable import load_readable


@experiment("patchscope", "Put a hidden state into another prompt and see how the model continues.")
@click.argument("source")
@click.argument("target")
@grouped("State", "--layer", type=int, help="Take the residual stream before this layer.  [default: each in turn]")
@grouped("State", "--position", type=int, default=-1, show_default=True, help="Take it at this position of SOURCE.")
@grouped("Place", "--target-layer", type=int, help="Put it before this layer.  [default: the same]")
@grouped(
    "Place", "--target-position", type=int, default=-1, show_default=True, help="Put it at this position of TARGET."
)
@grouped(
    "Writing",
    "--max-new-tokens",
    type=int,
    default=10,
    show_default=True,
    help="The number of tokens to generate at most.",
)
@grouped("Writing", "--answer", help="A token, whose log-probability --out draws for all pairs of layers.")
def patchscope(
    source: str,
    target: str,
    layer: int | None,
    position: int,
    target_layer: int | None,
    target_position: int,
    max_new_tokens: int,
    answer: str | None,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Put the residual stream of SOURCE, at one layer and position, into TARGET, and let the model continue."""
    from ..internals import patchscopes

    if out is not None and answer is None:
        raise ValueError("a picture needs --answer, the token whose log-probability is drawn")
    gpt2 = load_readable(model, dtype)
    here, there = gpt2.prompt_ids(source), gpt2.prompt_ids(target)
    token = None if answer is None else gpt2.to_single_token(answer)
    layers = range(gpt2.config.n_layer) if layer is None else [layer]
    said: dict[str, str] = {"plain": gpt2.generate(there, max_new_tokens=max_new_tokens).text}
    for one in layers:
        patched = patchscopes.patchscope(
            gpt2, here, there, layer=one, position=position, target_layer=target_layer, target_position=target_position
        )
        said[str(one)] = patched.generate(there, max_new_tokens=max_new_tokens).text
    print(dumps(said) if as_json else "\n".join(f"{name:>6} {text!r}" for name, text in said.items()))
    if out is None or token is None:
        return
    with bar(gpt2.config.n_layer**2, "run") as progress:
        values = patchscopes.sweep(
            gpt2, here, there, token, position=position, target_position=target_position, progress=progress.update
        )
    below, title = values - values.max(), f"{answer!r} after the target"
    draw(out, lambda plots: plots.heat(below, title=title, x="into layer", y="from layer", bar="nats below the best"))


@experiment("function-vector", "Extract the direction of a task shown by examples, and find the heads that carry it.")
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1)
@grouped("Examples", "--shots", default=5, show_default=True, help="The number of examples in a prompt.")
@grouped("Examples", "--count", default=20, show_default=True, help="The number of prompts of each kind.")
@grouped("Examples", "--seed", default=0, show_default=True, help="The seed that chooses the examples.")
@grouped("Vector", "--heads", default=10, show_default=True, help="The number of heads in the sum.")
@grouped("Vector", "--layer", type=int, help="Add the vector before this layer.  [default: a third of the way up]")
@grouped(
    "Vector",
    "--max-new-tokens",
    type=int,
    default=5,
    show_default=True,
    help="The number of tokens to generate at most.",
)
def function_vector(
    pairs: Path,
    prompts: tuple[str, ...],
    shots: int,
    count: int,
    seed: int,
    heads: int,
    layer: int | None,
    max_new_tokens: int,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Find the heads that carry the task shown by PAIRS, and continue PROMPTS without and with the function vector
    added at their last token. PAIRS is a file with an input and an output on each line, separated by a tab."""
    from ..internals import function_vectors as science
    from ..internals.steering import steer

    told = pairs_of(pairs)
    if len(told) <= shots:
        raise ValueError(
            f"{pairs} must hold {shots + 1} pairs, --shots of them examples and one asked, got {len(told)}"
        )
    gpt2 = load_readable(model, dtype)
    layer = gpt2.config.n_layer // 3 if layer is None else layer
    asked, shuffled = (
        science.shown(told, shots=shots, count=count, seed=seed, shuffled=mixed) for mixed in (False, True)
    )
    means = science.mean_outputs(gpt2, [gpt2.prompt_ids(one.prompt) for one in asked])
    answers = [gpt2.tokenizer.encode(one.answer, add_special_tokens=False)[0] for one in shuffled]
    with bar(count * gpt2.config.n_layer * gpt2.config.n_head, "run") as progress:
        effects = science.indirect_effects(
            gpt2, means, [gpt2.prompt_ids(one.prompt) for one in shuffled], answers, progress=progress.update
        )
    best = science.best_heads(effects, heads)
    vector = science.function_vector(gpt2, means, best)
    said = {}
    for prompt in prompts:
        ids = gpt2.prompt_ids(prompt)
        steered: Any = steer(gpt2, vector, layer, positions=[len(ids) - 1])
        said[prompt] = [one.generate(ids, max_new_tokens=max_new_tokens).text for one in (gpt2, steered)]
    named = [f"{one}.{head}" for one, head in best]
    if as_json:
        print(dumps({"heads": named, "layer": layer, "effects": np.round(effects, 6).tolist(), "written": said}))
    else:
        show(effects, False, row="layer", column="head", heads=" ".join(named), layer=layer)
        for prompt, (plain, with_vector) in said.items():
            print(f"{prompt!r}: plain {plain!r}, with the vector {with_vector!r}")
    draw(out, lambda plots: plots.head_scores(effects, title="Average indirect effect", bar="probability"))


def pairs_of(path: Path) -> list[tuple[str, str]]:
    """The pairs of a file. ``ValueError`` names the first line that is none."""
    from ..system.files import read_text

    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        x, tab, y = line.partition("\t")
        if not (x and tab and y):
            raise ValueError(f"{path}: line {number} must be an input and an output with a tab between")
        found.append((x, y))
    return found
