"""The server as a process: listening and shutting down."""

from __future__ import annotations

import gc
import signal
import socket
import warnings
from collections.abc import Sequence
from types import FrameType

import uvicorn

from ..text.gpt2 import GPT2
from .app import create_app
from .limits import Limits

LOOPBACK = ("localhost", "127.0.0.1", "::1")
AFTER = 5  # seconds after the time for ending in which answers may still be sent


class Process(uvicorn.Server):
    """Uvicorn's server: the first signal lets running work finish, the second one doesn't."""

    def __init__(self, config: uvicorn.Config, grace: float) -> None:
        super().__init__(config)
        self.grace, self.asked = grace, False

    def __repr__(self) -> str:
        return f"Process({self.config.host}, {self.config.port}, grace={self.grace})"

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At Ctrl-C or SIGTERM: take on nothing more."""
        again, self.asked = self.asked, True
        self.config.app.state.server.close(0.0 if again else self.grace)
        if again and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; ``OSError`` if that is impossible, ``ValueError`` for what is no name."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(256)
    except OSError as error:
        found.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None
    except (TypeError, ValueError):  # what can't be written as a machine's name, which Python says in many ways
        found.close()
        raise ValueError(f"host must be a machine's name or address, got {host!r:.100}") from None
    found.set_inheritable(False)
    return found


def serve(
    model: GPT2,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    cors: Sequence[str] = (),
    hosts: Sequence[str] = (),
    limits: Limits | None = None,
    grace: float = 30.0,
    ready: bool = True,
) -> None:
    """Serve a model until Ctrl-C or SIGTERM. ``OSError`` where the port can't be listened on.

    After the signal nothing more is taken on, and what is in progress has `grace` seconds; what isn't done then is
    told so. On the loopback addresses only requests to their names, and those in `hosts`, are answered.
    """
    if host not in LOOPBACK and api_key is None:
        warnings.warn("whoever reaches this machine may ask: give --api-key, or listen on 127.0.0.1", stacklevel=2)
    with listening(host, port) as found:
        answered = [*LOOPBACK, *hosts] if host in LOOPBACK else hosts or None
        app = create_app(model, name=name, limits=limits, api_key=api_key, cors=cors, hosts=answered)
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=int(grace) + AFTER, limit_concurrency=1024, backlog=256
        )
        if ready:
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{found.getsockname()[1]}"
            print(f"{app.state.server.name} at {address}/v1/completions; a page at {address}/", flush=True)
        # What is loaded by now stays. Python searches all that it hasn't been told so of for cycles, with no thread at
        # work meanwhile, and waits with that until a quarter as many objects are new: those that requests leave behind.
        gc.collect()
        gc.freeze()
        gc.collect()  # counts what is left, of which that quarter is taken
        try:
            Process(config, grace).run([found])
        finally:
            gc.unfreeze()
