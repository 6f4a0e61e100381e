"""HTTP requests and responses: size limits, OpenAI's error format, authorisation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import AUTHENTICATION, INVALID, Refused, refusal

PATIENCE = 60  # seconds in which a body must arrive
OPEN = ("/", "/health")  # what needs no key: the page, which asks for one, and whether the server is well


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response that any JSON reader accepts: ASCII, since a prompt may hold characters that UTF-8 can't
    encode.
    """
    return Response(json.dumps(value, allow_nan=False), status, headers, "application/json")


def as_error(error: BaseException) -> Response:
    """Return an error as a response. Clients that retry by themselves are told if that is useless."""
    told = refusal(error)
    headers = {}
    if told.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if told.status in (429, 503):
        headers["Retry-After"] = "1"
    if told.status in (500, 504):
        headers["x-should-retry"] = "false"
    return as_json(told.body(), told.status, headers)


def answering(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler so that refusals become responses; faults of the server propagate, to be logged."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except (Refused, ValueError, RecursionError) as error:
            return as_error(error)

    return answer


async def unknown(request: Request, error: Exception) -> Response:
    """Handle Starlette's own errors: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    messages = {404: f"there is no {where}; texts are written by POST /v1/completions", 405: f"{where} can't be asked"}
    message = messages.get(error.status_code, error.detail)
    if request.url.path == "/v1/chat/completions":
        message = "these are base models, which can't chat: give the text to be continued to /v1/completions"
    response = as_error(Refused(message, error.status_code, code="unknown_url"))
    response.headers.update(error.headers or {})
    return response


async def failed(request: Request, error: Exception) -> Response:
    """Handle a fault of the server: the log has the details, the answer doesn't."""
    return as_error(error)


async def body(request: Request, most: int) -> dict[str, Any]:
    """The JSON object in a request's body, of at most `most` bytes. `Refused` says what else it is."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":  # which no other site's page can send without asking first
        raise Refused(f"Content-Type must be application/json, got {kind or 'none'}", 415)
    too_large = Refused(f"the body must have at most {most} bytes", 413, code="body_too_large")
    if int(request.headers.get("content-length", "0")) > most:
        raise too_large
    try:
        read = await asyncio.wait_for(_read(request, most, too_large), PATIENCE)
    except asyncio.TimeoutError:
        raise Refused(f"the body must come within {PATIENCE} seconds", 408, code="timeout") from None
    try:
        found = json.loads(read.decode(), parse_constant=_no_number)
    except RecursionError:
        raise Refused("the body must be JSON that is nested less deeply") from None
    except ValueError as error:
        raise Refused(f"the body must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused("the body must be a JSON object")
    return found


async def _read(request: Request, most: int, too_large: Refused) -> bytes:
    read = bytearray()
    async for part in request.stream():
        read += part
        if len(read) > most:
            raise too_large
    return bytes(read)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


class Guard:
    """Rejects, before anything is read, requests without a valid key, or to another host name.

    A page of another site can make a browser ask this machine by a name that the site points here; the browser then
    still says that name, which is none of `hosts`.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, hosts: Sequence[str] | None) -> None:
        self.app, self.api_key, self.hosts = app, api_key, hosts

    def __repr__(self) -> str:
        """Tell whether there is a key, never the key."""
        return f"Guard({'with a' if self.api_key else 'without a'} key, hosts={self.hosts})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        refused = self._refused(scope) if scope["type"] == "http" else None
        if refused is None:
            await self.app(scope, receive, send)
        else:
            await as_error(refused)(scope, receive, send)

    def _refused(self, scope: Scope) -> Refused | None:
        headers = Headers(scope=scope)
        if self.hosts is not None and host_name(headers.get("host", "")) not in self.hosts:
            return Refused(f"this server answers to {', '.join(self.hosts)} only", 421, INVALID, code="unknown_host")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        free = path in OPEN or path.startswith("/inspect/") or scope["method"] == "OPTIONS"
        if self.api_key is None or free:
            return None
        given = headers.get("authorization", "")
        if compare_digest(given.encode(), f"Bearer {self.api_key}".encode()):
            return None
        why = "this server needs an API key: Authorization: Bearer KEY" if not given else "the API key is wrong"
        return Refused(why, 401, AUTHENTICATION, code="invalid_api_key")


def host_name(host: str) -> str | None:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
