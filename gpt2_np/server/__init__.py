"""A server of completions: OpenAI's protocol over HTTP, with continuous batching.

scheduler     `Scheduler`: texts join and leave between the model's steps; slots of memory are `session.slots`
growing       one job's texts in the batch          beside   searches, in threads of their own
jobs          what is to be written, and the events that tell of it
batched       `Batched`: the same in a program of your own, without HTTP
turns         one model, several threads
limits        every limit, with its default and help
errors        what a client is told               observing, metrics   what the work is watched by
completions   a request, read and checked         compiling   constraints, tried out in another process
answers       what was written, as the protocol tells it
writing       from a request to its answer, whole or as a stream
requests      HTTP in and out: bodies, keys, hosts
app           `create_app`: what is asked at which path; looking, page.html: the page
run           `serve`: the process
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .batched import Batched
    from .limits import Limits
    from .run import serve

__all__ = ["Batched", "Limits", "create_app", "serve"]

# Loaded when asked for: only the last two need the `serve` extra.
MODULES = {"Batched": "batched", "Limits": "limits", "create_app": "app", "serve": "run"}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{MODULES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs {error.name}: pip install 'gpt2-np[serve]'", name=error.name) from None
