"""A server of completions: OpenAI's protocol over HTTP, with continuous batching.

scheduler     `Scheduler`: texts join and leave between the model's steps; their slots of memory are `session.slots`
growing       the texts of one job in the batch
beside        searches, which run in threads of their own
jobs          requests to the scheduler, and the events that report their progress
batched       `Batched`: continuous batching in a program of your own, without HTTP
turns         one model used by several threads in turn
limits        every limit, with its default and help
errors        error messages for clients
observing     the interface that receives events
prometheus_metrics  counters of these events for Prometheus
completions   reading and checking a request
compiling     compiling constraints, first on trial in another process
answers       answers in OpenAI's format
writing       from a request to its answer, whole or as a stream
requests      HTTP requests and responses: bodies, keys, hosts
app           `create_app`: the routes
looking       the data for page.html, the web page
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
