"""``gpt2-np parity``: is this model the same here as on torch?"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from ..system.files import read_text
from .options import GroupedCommand, backend_option, grouped, model_option
from .plain import dumps


class ParityGroup(GroupedCommand, click.Group):
    """A command with options of its own and two below it."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options by group, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(
    cls=ParityGroup, invoke_without_command=True, short_help="Compare a model with torch, down to sampled tokens."
)
@model_option()
@grouped(
    "Model", "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where torch runs."
)
@backend_option("Which of our paths is checked.")
@grouped("Input", "--prompts", type=click.Path(path_type=Path), help="A file with one prompt a line.")
@grouped("Input", "--text", type=click.Path(path_type=Path), help="A file to compare the perplexity on.")
@grouped("Input", "--seed", type=int, default=0, show_default=True, help="The seed of the sampled tokens.")
@grouped("Output", "--json", "as_json", is_flag=True, help="One JSON object a check and nothing else.")
@click.pass_context
def parity(
    context: click.Context,
    model: str,
    device: str,
    backend: str | None,
    prompts: Path | None,
    text: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compare tokenizer, activations, logits, perplexity and decoded tokens with transformers on torch.

    Exit status 1 when anything is a mismatch. A token that differs only because two candidates are closer than
    float32 can tell is listed as a near-tie, with the numbers.
    """
    if context.invoked_subcommand is not None:
        return
    texts: list[str] = []
    if prompts is not None:
        texts = [line for line in read_text(prompts).splitlines() if line]
        if not texts:
            raise ValueError(f"{prompts} must hold at least one prompt, one a line")
    more = {} if text is None else {"text": read_text(text)}
    from ..parity import run

    counts = {"same": 0, "near-tie": 0, "mismatch": 0, "left out": 0}
    for check in run(model, device=device, prompts=texts, seed=seed, backend=backend, **more):
        counts[check.verdict] += 1
        if as_json:
            print(dumps(dataclasses.asdict(check)), flush=True)
            continue
        distances = "" if check.ours is None else f"  from float64: ours {check.ours:.1e}, torch {check.theirs:.1e}"
        figure = f"{check.difference:.1e} at {check.where}" if check.where else ""
        print(f"{check.verdict:<9} {check.name:<52} {figure:<26}{distances}  {check.note}".rstrip(), flush=True)
    if not as_json:
        print(f"\n{counts['same']} the same, {counts['near-tie']} near-ties, {counts['mismatch']} mismatches")
    if counts["mismatch"]:
        sys.exit(1)


@parity.command(short_help="Write a golden bundle for people with another implementation.")
@click.argument("folder", type=click.Path(path_type=Path))
@model_option("Options")
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="A prompt; repeatable.")
@click.option("--ids", "ids", multiple=True, metavar="'1 2 3'", help="A prompt as ids; repeatable.")
@click.option("--tokens", type=click.IntRange(min=1), default=20, show_default=True, help="Tokens of each decoding.")
@click.option("--training", is_flag=True, help="Gradients of a batch and ten steps of AdamW besides.")
def export(
    folder: Path, model: str, prompts: tuple[str, ...], ids: tuple[str, ...], tokens: int, training: bool
) -> None:
    """Write activations, logits, decoded tokens and decoder vectors into FOLDER, with float64 truths."""
    from ..parity import PROMPTS, bundle
    from ..text.gpt2 import GPT2

    try:
        rows = [[int(one) for one in text.split()] for text in ids]
    except ValueError:
        raise ValueError(f"--ids must be whole numbers separated by spaces, got {' / '.join(ids)!r}") from None
    texts = prompts or (() if rows else PROMPTS[:1])
    if texts:
        named = GPT2.from_pretrained(model)
        rows += [named.prompt_ids(text) for text in texts]
    bundle.export(folder, model, rows, tokens, with_training=training)
    print(f"wrote {folder}: {len(rows)} prompts; its bundle.json says what is in it")


@parity.command(short_help="Judge another implementation by a golden bundle.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), required=True, metavar="THEIRS", help="Its answers.")
@click.option(
    "--tolerance",
    type=float,
    metavar="SHARE",
    help="How far a number may be off, as a share of its tensor's largest, in place of the bundle's own: for a port "
    "in float16, 0.01.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a check and nothing else.")
def check(folder: Path, against: Path, tolerance: float | None, as_json: bool) -> None:
    """Compare THEIRS with the bundle in FOLDER, operation by operation, and name the first that goes wrong.

    Exit status 1 when any does. What THEIRS leaves out is counted, and isn't wrong.
    """
    from ..parity import bundle

    checks = list(bundle.check(folder, against, tolerance=tolerance))
    wrong = [one for one in checks if not one.passed]
    for one in checks if as_json else wrong:
        print(
            dumps(dataclasses.asdict(one))
            if as_json
            else f"{one.name:<40} {far(one.difference)} at {one.where or 'a token'}  {one.note}".rstrip()
        )
    if not as_json:
        absent = sum(one.verdict == "left out" for one in checks)
        print(
            f"{len(checks) - len(wrong) - absent} right, {len(wrong)} wrong"
            + (f", {absent} left out" if absent else "")
            + (f"; the first that goes wrong: {wrong[0].name}" if wrong else "")
        )
    if wrong:
        sys.exit(1)


def far(difference: float) -> str:
    """How far off, in words where no number says it."""
    if difference == float("inf"):
        return "infinitely off"
    return f"{difference:.2e} off" if difference else "differs"
