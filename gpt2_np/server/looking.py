"""The server's page, and its further data: the next token's distribution, and the inspection page."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from decoders import Options
from decoders.base.ranking import highest
from decoders.base.watching import TokenStep, shares

from ..internals.page import inspect_page
from ..model.arrays import Array
from ..text.gpt2 import GPT2
from .completions import Completions
from .errors import Refused
from .jobs import Done, Event, Top
from .limits import Limits
from .scheduler import Scheduler

KNOWN = 500  # of the likeliest tokens the model's own probability is told
PAGE_RULES = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'; connect-src 'self'; "
    "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def page_and_rules() -> tuple[str, str]:
    """The page, and the content security policy that lets no script run but its own."""
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return text, PAGE_RULES.format(script=digest)


async def distribution(asked: Completions, scheduler: Scheduler, limits: Limits) -> dict[str, Any]:
    """Return the likeliest next tokens, each with the model's probability and its share after the processors.

    Beside them: what each processor did, and how many tokens are left. `Refused` for what has no such steps.
    """
    options = with_scores(asked.options)
    one = replace(asked, prompts=asked.prompts[:1], options=options, echo=False, stream=False)
    loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def tell(event: Done) -> None:
        if not done.done():
            done.set_result(event)

    def deliver(event: Event) -> None:
        if isinstance(event, Done):
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(tell, event)

    trace: list[Any] = []
    jobs = one.jobs(scheduler.model, limits, lambda number: deliver, trace=trace)
    if not jobs[0].shares:
        raise Refused("what comes next is told of greedy decoding and sampling; leave searches out")
    scheduler.submit(jobs)
    try:
        event: Done = await done
    finally:
        scheduler.cancel(jobs)
    if event.error is not None:
        raise event.error
    completion, step = event.completions[0], trace[0]
    return told(scheduler.model, completion.top[0], completion.scores[0], step, asked.options.top_logprobs)


def with_scores(options: Options) -> Options:
    """Return one text's options with the sampler's scores and the model's likeliest tokens added."""
    given = {name: getattr(options, name) for name in options.given}
    return Options.from_names(given | {"output_scores": True, "num_return_sequences": 1, "top_logprobs": KNOWN})


def told(model: GPT2, top: Top, scores: Array, step: TokenStep, count: int) -> dict[str, Any]:
    """Return what the page draws: the `count` likeliest tokens before and after."""
    after, logprobs = shares(scores), dict(top)
    chosen = [token for token in highest(after, count).tolist() if after[token] > 0]
    tokens = dict.fromkeys([*[token for token, _ in top[:count]], *chosen])
    tokenizer = model.tokenizer
    return {
        "tokens": [
            {
                "id": token,
                "text": tokenizer.tokens([token])[0],
                "probability": float(np.exp(logprobs[token])) if token in logprobs else None,
                "after": float(after[token]),
            }
            for token in tokens
        ],
        "entropy": step.entropy,
        "left": int((after > 0).sum()),
        "vocabulary": len(scores),
        "changes": [asdict(one) for one in step.changes],
    }


def inspected(model: GPT2, prompt: Any, most: int) -> str:
    """Return the inspection page of a text, or of its last `most` tokens."""
    if not isinstance(prompt, str):
        raise Refused("prompt must be a text", param="prompt")
    ids = model.prompt_ids(prompt)
    if len(ids) > most:
        raise Refused(f"a text that is looked into must have at most {most} tokens, got {len(ids)}", param="prompt")
    return inspect_page(model, ids)
