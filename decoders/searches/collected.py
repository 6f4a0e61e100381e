"""Completions assembled from the tokens that a task writes one by one."""

from __future__ import annotations

from collections.abc import Iterable

from ..base.interface import Completion, Token
from ..base.task import Task


def collected(task: Task) -> list[Completion]:
    """Return the completions of every prompt, its copies side by side."""
    return put_together(task.write(task), len(task.prompts) * task.copies)


def put_together(tokens: Iterable[Token], rows: int) -> list[Completion]:
    """Return the completions of a number of rows, given all their tokens."""
    completions = [Completion() for _ in range(rows)]
    for token in tokens:
        completion = completions[token.row]
        completion.ids.append(token.id)
        completion.logprobs.append(token.logprob)
        if token.finish_reason is not None:
            completion.finish_reason = token.finish_reason
        if token.top:
            completion.top.append(token.top)
        if token.scores is not None:
            completion.scores.append(token.scores)
        if token.assistance is not None:
            completion.assistance = token.assistance
    return completions
