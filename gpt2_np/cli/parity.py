"""``gpt2-np parity``: is this model the same here as on torch?"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from .options import GroupedCommand, grouped


@click.command(cls=GroupedCommand, short_help="Compare a model with torch, down to sampled tokens.")
@grouped("Model", "-m", "--model", default="tales", show_default=True, metavar="NAME",
         help="Any name that generate takes.")  # fmt: skip
@grouped("Model", "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
         help="Where torch runs.")  # fmt: skip
@grouped("Model", "--backend", type=click.Choice(["numba", "numpy"]), default="numba", show_default=True,
         help="Which of our paths is checked.")  # fmt: skip
@grouped("Input", "--prompts", type=click.Path(path_type=Path), help="A file with one prompt a line.")
@grouped("Input", "--seed", type=int, default=0, show_default=True, help="The seed of the sampled tokens.")
@grouped("Output", "--json", "as_json", is_flag=True, help="One JSON object a check and nothing else.")
def parity(model: str, device: str, backend: str, prompts: Path | None, seed: int, as_json: bool) -> None:
    """Compare tokenizer, activations, logits, perplexity and decoded tokens with transformers on torch.

    Exit status 1 when anything is a mismatch. A token that differs only because two candidates are closer than
    float32 can tell is listed as a near-tie, with the numbers.
    """
    from ..parity import PROMPTS, run

    texts = list(PROMPTS)
    if prompts is not None:
        texts = [line for line in prompts.read_text(encoding="utf-8").splitlines() if line]
        if not texts:
            raise ValueError(f"{prompts} must hold at least one prompt, one a line")
    counts = {"same": 0, "near-tie": 0, "mismatch": 0}
    for check in run(model, device=device, prompts=texts, seed=seed, backend=backend):
        counts[check.verdict] += 1
        if as_json:
            print(json.dumps(dataclasses.asdict(check)), flush=True)
            continue
        distances = "" if check.ours is None else f"  from float64: ours {check.ours:.1e}, torch {check.theirs:.1e}"
        figure = f"{check.difference:.1e} at {check.where}" if check.where else ""
        print(f"{check.verdict:<9} {check.name:<52} {figure:<26}{distances}  {check.note}".rstrip(), flush=True)
    if not as_json:
        print(f"\n{counts['same']} the same, {counts['near-tie']} near-ties, {counts['mismatch']} mismatches")
    if counts["mismatch"]:
        sys.exit(1)
