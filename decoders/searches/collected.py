"""Texts put together from the tokens that a task writes one by one."""

from __future__ import annotations

from ..base.interface import Completion
from ..base.task import Task


def collected(task: Task) -> list[Completion]:
    """What becomes of every prompt, its copies side by side."""
    completions = [Completion() for _ in task.prompts for _ in range(task.copies)]
    for token in task.write(task):
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
