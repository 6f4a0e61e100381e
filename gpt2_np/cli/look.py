"""``gpt2-np logits`` and ``gpt2-np info``: the next token's distribution, and a model's description."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from ..system.errors import one_line
from ..system.files import JSONObject
from .options import GroupedCommand, grouped, load, model_options
from .plain import dumps
from .progress import compiling

if TYPE_CHECKING:
    from ..model.config import Config


@click.command(cls=GroupedCommand, short_help="Show the likeliest next tokens.")
@click.argument("prompt")
@grouped(
    "Output", "--top", type=click.IntRange(min=1), default=10, show_default=True, help="The number of tokens to show."
)
@grouped("Output", "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@model_options
def logits(
    prompt: str, top: int, as_json: bool, model: str, dtype: str, backend: str | None, device: str | None
) -> None:
    """Show the likeliest next tokens after PROMPT, with their logits and probabilities."""
    gpt2 = load(model, dtype, backend, device)
    compiling(gpt2)
    ids = gpt2.prompt_ids(prompt)
    found = gpt2(ids)
    gpt2.check_logits(found, np.array([ids]))
    scores = found[-1].astype(np.float64)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    best = np.argsort(-scores, kind="stable")[:top].tolist()
    rows = [
        {
            "id": token,
            "token": gpt2.tokenizer.decode([token]),
            "logit": float(scores[token]),
            "probability": float(p[token]),
        }
        for token in best
    ]
    if as_json:
        about = {"prompt": prompt, "ids": ids, "vocabulary": len(scores), "top": rows}
        print(dumps(about | {"min": float(scores.min()), "max": float(scores.max())}))
        return
    print(f"{len(ids)} tokens in, {len(scores):,} logits out, from {scores.min():.2f} to {scores.max():.2f}\n")
    width = max(len(repr(row["token"])) for row in rows)
    print(f"{'rank':>4}  {'id':>6}  {'token':<{width}}  {'logit':>8}  probability")
    for rank, row in enumerate(rows, 1):
        bar = "█" * round(40 * row["probability"])
        print(
            f"{rank:>4}  {row['id']:>6}  {row['token']!r:<{width}}  {row['logit']:>8.3f}  "
            f"{row['probability']:>7.2%} {bar}"
        )


@click.command(cls=GroupedCommand, short_help="Show a model's sizes and where its files are.")
@grouped("Output", "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@model_options
def info(as_json: bool, model: str, dtype: str, backend: str | None, device: str | None) -> None:
    """Show a model's sizes, its number of parameters, and where its files are."""
    from ..model.params import flatten
    from ..text.generation_config import settings
    from ..weights.hub import locate
    from ..weights.load import files

    gpt2 = load(model, "float32" if backend != "torch" else dtype, backend, device)
    config = gpt2.config
    count = sum(array.size for _, array in flatten(gpt2.params))
    folder = locate(model)
    on_disk = {path.name: path.stat().st_size for path in files(folder)}
    fields: JSONObject = {
        "model": model,
        "folder": str(folder),
        "parameters": count,
        "n_layer": config.n_layer,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_inner": config.mlp_width,
        "n_positions": config.n_positions,
        "vocab_size": config.vocab_size,
        "activation_function": config.activation_function,
        "tie_word_embeddings": gpt2.params.lm_head is gpt2.params.wte,
        "files": on_disk,
        "eos_token_id": list(gpt2.eos_token_ids),
        "generation_config": settings(gpt2.generation_config),
    } | passed_over(folder, config)
    if as_json:
        print(dumps(fields))
        return
    print(f"{model}: {count:,} parameters in {folder}\n")
    for name in ("n_layer", "n_embd", "n_head", "n_inner", "n_positions", "vocab_size", "activation_function"):
        print(f"  {name:<20} {fields[name]}")
    for name, size in on_disk.items():
        print(f"  {name:<20} {size / 2**20:,.1f} MiB")
    print(f"  {'in memory, float32':<20} {4 * count / 2**20:,.1f} MiB")
    ends = ", ".join(
        f"{token} {gpt2.tokenizer.decode([token])!r}" if gpt2.has_tokenizer else str(token)
        for token in gpt2.eos_token_ids
    )
    print(f"  {'texts end with':<20} {ends or 'nothing'}")
    if fields["generation_config"]:
        shown = ", ".join(f"{name} {value!r}" for name, value in fields["generation_config"].items())
        print(f"  {'generation config':<20} {shown} (used with --generation-config)")
    for name in ("ignored_keys", "ignored_tensors"):
        if fields[name]:
            print(f"  {name.replace('_', ' '):<20} {one_line(', '.join(fields[name]))}")


def passed_over(folder: Path, config: Config) -> dict[str, list[str]]:
    """Return what a folder holds that GPT-2 ignores: keys of its config.json, and tensors."""
    from ..model.config import Config
    from ..system.files import read_object
    from ..weights.load import read

    keys = Config.passed_over(read_object(folder / "config.json"))
    return {"ignored_keys": keys, "ignored_tensors": read(folder, config)[1]}
