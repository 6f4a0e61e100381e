"""A server in this process, on a free port of the loopback address, and a client of the standard library."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NEEDED = ("starlette", "uvicorn", "sse_starlette", "prometheus_client")
for package in NEEDED:
    pytest.importorskip(package, reason=f"needs {package}: pip install 'gpt2-np[serve]'")

import uvicorn  # noqa: E402

from gpt2_np import GPT2  # noqa: E402
from gpt2_np.server.app import Server, create_app  # noqa: E402
from gpt2_np.server.limits import Limits  # noqa: E402


class Client:
    """Asks a server at a port of this machine."""

    def __init__(self, port: int, server: Server | None = None) -> None:
        self.port, self.server = port, server

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            more = {"Content-Type": "application/json"} if raw is not None else {}
            connection.request(method, path, raw, more | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Any:
        status, _, raw = self.request("GET", path, headers=headers)
        assert status == 200, raw
        return json.loads(raw)

    def post(self, path: str, **body: Any) -> Any:
        status, _, raw = self.request("POST", path, body)
        assert status in (200, 201), raw
        return json.loads(raw)

    def complete(self, prompt: Any, **body: Any) -> Any:
        return self.post("/v1/completions", prompt=prompt, **body)

    def refused(self, path: str = "/v1/completions", **body: Any) -> tuple[int, dict[str, Any]]:
        status, _, raw = self.request("POST", path, body)
        found = json.loads(raw)
        assert status >= 400, found
        assert set(found) == {"error"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        return status, found["error"]

    def events(self, **body: Any) -> list[Any]:
        """The data of a stream's events."""
        status, headers, raw = self.request("POST", "/v1/completions", body | {"stream": True})
        assert status == 200, raw
        assert headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in raw.decode().splitlines() if line.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in lines]


@contextmanager
def running(model: GPT2, limits: Limits | None = None, **settings: Any) -> Iterator[Client]:
    """A server of a model; its threads and its port are gone when the test goes on."""
    app = create_app(model, limits=limits, **settings)
    process = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5))
    process.install_signal_handlers = lambda: None
    thread = threading.Thread(target=process.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not process.started:
        assert time.monotonic() < deadline, "the server must start within 20 seconds"
        time.sleep(0.01)
    try:
        yield Client(process.servers[0].sockets[0].getsockname()[1], app.state.server)
    finally:
        process.should_exit = True
        thread.join(20)
        app.state.server.scheduler.join(10)
        assert not thread.is_alive()
        assert not app.state.server.scheduler.thread.is_alive()
