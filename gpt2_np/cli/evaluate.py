"""``gpt2-np evaluate``: lm-evaluation-harness's tasks on a model, and what reduced precision costs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..model.choices import DTYPES
from ..system.files import read_text
from .lines import standard_input
from .options import GroupedCommand, grouped, load, model_options
from .plain import dumps
from .progress import bar, compiling

if TYPE_CHECKING:
    from ..text.gpt2 import GPT2

REFERENCE = "float32"


@click.command(cls=GroupedCommand, short_help="Run lm-evaluation-harness's tasks; measure what precision costs.")
@grouped("Tasks", "--tasks", metavar="T,T", help="Tasks and groups of lm-evaluation-harness, such as lambada_openai.")
@grouped(
    "Tasks",
    "--include-path",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Task files of your own; they may run code, so take none that you don't trust.",
)
@grouped(
    "Tasks",
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    help="Evaluate only this many documents of each task.",
)
@grouped("Tasks", "--num-fewshot", type=click.IntRange(min=0), help="The number of examples before each question.")
@grouped(
    "Tasks", "--gen-kwargs", metavar="K=V,…", help="Arguments of generation, which take precedence over the task's own."
)
@grouped(
    "Tasks",
    "--batch-size",
    type=click.IntRange(min=1),
    help="The number of rows in a batch.  [default: as many as make 1,024 tokens]",
)
@grouped(
    "Tasks",
    "--cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep answers in this file, and resume from what it holds.",
)
@grouped(
    "Precision",
    "--divergence",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE|-",
    help="Compare each reduced precision (or the one of --dtype) with float32 on this text.",
)
@grouped(
    "Precision",
    "--stride",
    type=int,
    help="The number of tokens between windows of that text.  [default: half the context]",
)
@grouped(
    "Output",
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object for each task or precision, and nothing else.",
)
@model_options
def evaluate(
    tasks: str | None,
    include_path: tuple[Path, ...],
    limit: float | None,
    num_fewshot: int | None,
    gen_kwargs: str | None,
    batch_size: int | None,
    cache: Path | None,
    divergence: Path | None,
    stride: int | None,
    as_json: bool,
    model: str,
    dtype: str,
    backend: str | None,
    device: str | None,
) -> None:
    """Run lm-evaluation-harness's tasks (the `evaluate` extra), or measure what reduced precision costs on a text.

    \b
    gpt2-np evaluate --tasks lambada_openai,hellaswag --model gpt2 --limit 100
    gpt2-np evaluate --tasks mine --include-path tasks/
    gpt2-np evaluate --divergence book.txt
    """
    if (tasks is None) == (divergence is None):
        raise ValueError("give either --tasks or --divergence")
    of_tasks = {
        "--include-path": include_path or None,
        "--limit": limit,
        "--num-fewshot": num_fewshot,
        "--gen-kwargs": gen_kwargs,
        "--batch-size": batch_size,
        "--cache": cache,
    }
    if tasks is None:
        assert divergence is not None
        wrong = next((name for name, value in of_tasks.items() if value is not None), None)
        if wrong is not None:
            raise ValueError(f"{wrong} is for --tasks")
        compare(divergence, [load(model, one, backend, device) for one in compared(dtype)], stride, as_json)
        return
    if stride is not None:
        raise ValueError("--stride is for --divergence")
    try:
        from ..evaluation import HarnessModel
    except ImportError as error:
        raise ValueError(str(error)) from None
    arguments = {} if gen_kwargs is None else parsed(gen_kwargs)
    gpt2 = load(model, dtype, backend, device)
    compiling(gpt2)
    judged = HarnessModel(gpt2, batch_size=batch_size, cache=cache)
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    from ..evaluation.tasks import quiet, rows, run, table

    with quiet():
        try:
            results = run(judged, names, include=include_path, limit=limit, shots=num_fewshot, arguments=arguments)
        except (ValueError, OSError, MemoryError):
            raise
        except Exception as error:  # a task file may hold anything, and what becomes of it in the harness too
            raise ValueError(f"a task can't be run: {type(error).__name__}: {error}") from error
    if as_json:
        for row in rows(results):
            print(dumps(finite(row)))
    else:
        print(table(results))


def parsed(text: str) -> dict[str, Any]:
    """K=V,K=V as the harness reads it. ``ValueError`` where it can't be read."""
    from lm_eval.utils import simple_parse_args_string

    if any("=" not in part for part in text.split(",")):
        raise ValueError(f"--gen-kwargs must be K=V,K=V, got {text!r:.100}")
    found: dict[str, Any] = simple_parse_args_string(text)
    return found


def finite(value: Any) -> Any:
    """The same with null for what is not a number, such as the error of one document's mean."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and value != value else value


def compared(dtype: str) -> list[str]:
    """The reference's precision, then those that are compared with it: all reduced ones, or the one that was named."""
    if dtype != REFERENCE:
        return [REFERENCE, dtype]
    return [REFERENCE, *(name for name in DTYPES if name not in (REFERENCE, "float64"))]


def compare(file: Path, models: Sequence[GPT2], stride: int | None, as_json: bool) -> None:
    """Print how far each model is from the first on a text."""
    from ..evaluation.divergence import divergences, dtype_of

    text = standard_input() if str(file) == "-" else read_text(file)
    reference, *others = models
    compiling(reference)
    with bar(len(reference.tokenizer.encode(text, add_special_tokens=False)), "token") as progress:
        found = divergences(
            reference, {dtype_of(one): one for one in others}, text, stride=stride, progress=progress.update
        )
    if as_json:
        for row in found:
            print(dumps(finite(asdict(row))))
        return
    print(f"{found[0].tokens:,} tokens; KL divergence from {found[0].dtype}, nats a token\n")
    print("precision  perplexity         mean KL      99% KL     largest  same top  weights, MiB")
    for row in found:
        far = f"{row.mean:9.6f} ± {row.error:.6f}  {row.p99:9.6f}  {row.largest:9.5f}  {row.same_top:8.2%}"
        print(
            f"{row.dtype:<9}  {row.perplexity:10.4f}  {far if row is not found[0] else '':<52}  {row.mebibytes:10.1f}"
        )
