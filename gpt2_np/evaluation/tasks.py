"""lm-evaluation-harness's tasks, by name or from files of one's own, run on a `HarnessModel`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import datasets
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from ..system.files import JSONObject
from .harness import HarnessModel


def run(
    model: HarnessModel,
    tasks: Sequence[str],
    *,
    include: Sequence[Path] = (),
    limit: float | None = None,
    shots: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> JSONObject:
    """The harness's results of some tasks, as ``lm_eval.simple_evaluate`` returns them, without the samples.

    `include` are folders of task files (YAML), which may run code of their own: they are to be trusted as programs are.
    `limit` takes this many documents of each task, or, below 1, a share of them; `shots` is the number of examples;
    `arguments` go before a task's own arguments of generation. ``ValueError`` for a task that isn't there.
    """
    if not tasks:
        raise ValueError("tasks must name at least one task, got none")
    for folder in include:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r} of tasks")
    manager = manager_of(tasks, [str(folder) for folder in include])
    results = simple_evaluate(
        model=model,
        tasks=[one for name in tasks for one in manager.match_tasks([name])],
        task_manager=manager,
        limit=limit,
        num_fewshot=shots,
        gen_kwargs=dict(arguments) if arguments else None,
        log_samples=False,
    )
    assert results is not None, "results are missing on the first rank only"
    return dict(results)


def manager_of(tasks: Sequence[str], include: list[str]) -> TaskManager:
    """Return the task manager: it searches only the given folders if all tasks are there, since searching the harness's
    own takes long.

    ``ValueError`` for a task that is nowhere.
    """
    missing = list(tasks)
    for harness in (False, True) if include else (True,):
        manager = TaskManager(include_path=include or None, include_defaults=harness)
        missing = [name for name in tasks if not manager.match_tasks([name])]
        if not missing:
            return manager
    raise ValueError(f"there is no task {missing[0]!r}; lm-eval ls tasks lists the harness's own")


def table(results: JSONObject) -> str:
    """The results as the harness prints them: a table of tasks, and one of groups where there are some."""
    return "\n".join(
        make_table(results, *column).rstrip() for column in ([], ["groups"]) if not column or results.get("groups")
    )


def rows(results: JSONObject) -> list[JSONObject]:
    """The results, an object a task: its name and version, its examples and documents, and the metrics."""
    return [
        {
            "task": name,
            "version": results["versions"].get(name),
            "num_fewshot": results["n-shot"].get(name),
            "documents": results["n-samples"].get(name, {}).get("effective"),
            "results": {
                metric: float(value) if hasattr(value, "__float__") else value
                for metric, value in found.items()
                if metric not in ("alias", "name", "sample_len", "sample_count")
            },
        }
        for name, found in results["results"].items()
    ]


@contextmanager
def quiet() -> Iterator[None]:
    """The harness without its messages below an error, what it prints, and, where no terminal shows them, its bars."""
    logger = logging.getLogger("lm_eval")
    level, shown = logger.level, datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with redirect_stdout(StringIO()), nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()
