"""``gpt2-np internals task``: pairs of prompts with a known right answer, and how well a model does with them."""

from __future__ import annotations

from pathlib import Path

import click

from .internals import draw, experiment
from .options import grouped
from .plain import dumps
from .readable import load_readable


@experiment("task", "Draw pairs of prompts with known answers, and measure the model on them.")
@click.argument("name", type=click.Choice(["indirect-object", "possessives"]))
@grouped("Pairs", "--count", type=click.IntRange(min=1), default=100, show_default=True, help="The number of pairs.")
@grouped("Pairs", "--seed", default=0, show_default=True, help="The seed that draws the pairs.")
@grouped(
    "Pairs",
    "--order",
    type=click.Choice(["ABB", "BAB"]),
    help="Which name comes first (ABB or BAB).  [default: both in turn]",
)
@grouped("Pairs", "--corruption", type=click.Choice(["names", "swap"]), help="How the clean prompts are corrupted.")
@grouped("Pairs", "--bos", is_flag=True, help="Begin each prompt with end-of-text.")
@grouped("Pairs", "--pairs", "show_pairs", is_flag=True, help="Print only the pairs, one JSON object on each line.")
def task(
    name: str,
    count: int,
    seed: int,
    order: str | None,
    corruption: str | None,
    bos: bool,
    show_pairs: bool,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Draw pairs of prompts of a task and measure the model on them: the difference between the right and the wrong
    answer's logits, the right answer's probability, and how often it is the likelier of the two. Figures are given for
    the clean prompts of each form, and for the corrupted ones."""
    from ..internals import tasks

    gpt2 = load_readable(model, dtype)

    def encode(text: str) -> list[int]:
        return gpt2.tokenizer.encode(text, add_special_tokens=False)

    options = {} if corruption is None else {"corruption": corruption}
    examples = tasks.TASKS[name](encode, count, seed=seed, order=order, **options)
    if show_pairs:
        if out is not None:
            raise ValueError("--pairs draws no picture; leave out --out, or --pairs")
        for one in examples:
            print(dumps(one._asdict()))
        return
    pairs = tasks.batches(gpt2, examples, prepend_bos=bos)
    measured = tasks.measure(gpt2, pairs)
    measured["corrupted"] = tasks.measure(gpt2, pairs, corrupted=True)["all"]
    if as_json:
        print(dumps({"task": name, "measured": {form: one._asdict() for form, one in measured.items()}}))
    else:
        one = examples[0]
        print(f"{one.clean!r} →{one.answer!r}, not{one.wrong!r}\n{one.corrupted!r}: corrupted")
        print(f"{'form':>10} {'pairs':>6} {'difference':>11} {'spread':>7} {'probability':>12} {'accuracy':>9}")
        for form, each in measured.items():
            numbers = f"{each.difference:>11.2f} {each.spread:>7.2f} {each.probability:>12.3f} {each.accuracy:>9.0%}"
            print(f"{form:>10} {each.pairs:>6} {numbers}")
    values = [each.difference for each in measured.values()]
    draw(
        out, lambda plots: plots.bars(values, list(measured), title=name, x="logit of the right less the wrong answer")
    )
