"""``gpt2-np internals jacobian-lens`` and ``merge-lenses``: a lens fitted on a corpus, in parts where that suits."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from .internals import draw, experiment
from .options import grouped, length_option
from .plain import dumps
from .progress import bar
from .readable import load_readable

FILE = click.Path(path_type=Path)


@experiment("jacobian-lens", "Fit a Jacobian lens on a corpus.")
@click.argument("corpus", type=FILE)
@click.argument("lens", type=FILE)
@length_option(default=128)
@grouped("Corpus", "--texts", type=click.IntRange(min=1), help="The number of texts to read.  [default: all]")
@grouped(
    "Corpus", "--skip-texts", type=click.IntRange(min=0), default=0, help="The number of texts to skip before them."
)
@grouped(
    "Lens",
    "--skip-first",
    default=16,
    show_default=True,
    help="The number of positions at a text's start that don't count.",
)
@grouped(
    "Lens", "--resume", is_flag=True, help="Resume: continue with the texts after those that the file LENS has read."
)
def fit_lens(
    corpus: Path,
    lens: Path,
    length: int | None,
    texts: int | None,
    skip_texts: int,
    skip_first: int,
    resume: bool,
    out: Path | None,
    as_json: bool,
    model: str,
    dtype: str,
) -> None:
    """Fit a Jacobian lens on CORPUS and write it to the file LENS after every ten texts; `internals lens --jacobian`
    uses it.

    Each text of 128 tokens costs as much as D of its gradients: seconds with a small model, minutes with a large one.
    100 texts are usually enough. `internals merge-lenses` merges parts that were fitted separately (--skip-texts,
    --texts). Texts are taken as they are, without end-of-text before them.
    """
    from ..internals import jacobian_lens
    from ..internals.corpus import read_corpus
    from ..internals.lens import logit_lens

    if lens.exists() and not resume:
        raise ValueError(f"{lens} is there already: --resume goes on with it, or name another file")
    after = jacobian_lens.load(lens) if resume and lens.exists() else None
    gpt2 = load_readable(model, dtype)
    length = min(jacobian_lens.LENGTH, gpt2.config.n_positions) if length is None else length

    def some() -> Any:
        every = read_corpus(corpus, gpt2.tokenizer, length=length)
        return islice(every, skip_texts, None if texts is None else skip_texts + texts)

    options: dict[str, Any] = {"skip_first": skip_first, "length": length, "after": after}
    with bar(texts or 0, "text") as progress:
        progress.update(after.offered if after else 0)
        fitted = jacobian_lens.fit(
            gpt2, some(), **options, part=lambda so_far: so_far.save(lens), progress=progress.update
        )
    fitted.save(lens)
    first = next(text for text in some() if len(text) >= skip_first + 2)
    plain, looked = logit_lens(gpt2, first), fitted(gpt2, first)
    kept = slice(skip_first, -1)
    curves = {"logit lens": plain.divergence()[1:, kept].mean(1), "Jacobian lens": looked.divergence()[:, kept].mean(1)}
    if as_json:
        about = {"lens": str(lens), "texts": fitted.texts, "offered": fitted.offered, "streams": looked.labels}
        print(dumps(about | {name: np.round(values, 6).tolist() for name, values in curves.items()}))
    else:
        print(f"{lens}: {fitted.texts} texts; nats between what each layer would say and the output, on the first")
        for at, label in enumerate(looked.labels):
            print(f"{label:>12}" + "".join(f"  {name} {values[at]:7.3f}" for name, values in curves.items()))
    title = "From each layer to the output"
    draw(out, lambda plots: plots.lines(curves, title=title, x="stream", y="KL (nats)", x_labels=looked.labels))


@experiment("merge-lenses", "Merge Jacobian lenses of different texts.")
@click.argument("lens", type=FILE)
@click.argument("parts", type=FILE, nargs=-1, required=True)
def merge_lenses(lens: Path, parts: tuple[Path, ...], out: Path | None, as_json: bool, model: str, dtype: str) -> None:
    """Merge PARTS into the file LENS: the result is that of a fit on the texts of all parts, each counted once."""
    from ..internals import jacobian_lens

    if out is not None:
        raise ValueError("merging draws no picture; --out is for the other experiments")
    if lens.exists():
        raise ValueError(f"{lens} is there already: name another file")
    merged = jacobian_lens.merge([jacobian_lens.load(part) for part in parts])
    merged.save(lens)
    about = {"lens": str(lens), "texts": merged.texts, "offered": merged.offered}
    print(dumps(about) if as_json else f"{lens}: {merged.texts} texts")
