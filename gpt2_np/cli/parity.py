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
    "Model",
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="The device on which torch runs.",
)
@backend_option("The implementation that is checked: compiled kernels, or readable NumPy.")
@grouped("Input", "--prompts", type=click.Path(path_type=Path), help="A file with one prompt a line.")
@grouped("Input", "--text", type=click.Path(path_type=Path), help="A file of text on which the perplexity is compared.")
@grouped("Input", "--seed", type=int, default=0, show_default=True, help="The seed of the sampled tokens.")
@grouped("Output", "--json", "as_json", is_flag=True, help="Print one JSON object for each check and nothing else.")
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

    The exit status is 1 if there is a mismatch. If two candidates are closer than float32 can distinguish and a token
    differs only for that reason, it is listed as a near-tie with the numbers.
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
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="The number of tokens that each decoding method writes.",
)
@click.option("--training", is_flag=True, help="Add the gradients of a batch and ten steps of AdamW.")
def export(
    folder: Path, model: str, prompts: tuple[str, ...], ids: tuple[str, ...], tokens: int, training: bool
) -> None:
    """Write activations, logits, decoded tokens and decoder vectors into FOLDER, with reference values in float64."""
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


@parity.command(short_help="Check another implementation against a golden bundle.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    required=True,
    metavar="THEIRS",
    help="The folder of the other implementation's answers.",
)
@click.option(
    "--tolerance",
    type=float,
    metavar="SHARE",
    help="The largest error that is allowed, as a share of the tensor's largest value, in place of the bundle's own; "
    "0.01 suits a port in float16.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each check and nothing else.")
def check(folder: Path, against: Path, tolerance: float | None, as_json: bool) -> None:
    """Compare THEIRS with the bundle in FOLDER, operation by operation, and name the first that is wrong.

    The exit status is 1 if one is wrong. What THEIRS leaves out is counted, but isn't an error.
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
    """Describe a difference, in words if there is no number for it."""
    if difference == float("inf"):
        return "infinitely off"
    return f"{difference:.2e} off" if difference else "differs"
