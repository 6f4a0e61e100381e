"""Errors for clients: OpenAI's format, the right HTTP status, one line."""

from __future__ import annotations

from typing import Any

from ..system.errors import one_line

INVALID, AUTHENTICATION, BUSY, SERVER = (
    "invalid_request_error",
    "authentication_error",
    "rate_limit_error",
    "server_error",
)


class Refused(Exception):
    """A refused request: the HTTP status, and the fields of OpenAI's error object."""

    def __init__(
        self, message: str, status: int = 400, kind: str = INVALID, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's API says it."""
        message = one_line(str(self))
        return {"error": {"message": message, "type": self.kind, "param": self.param, "code": self.code}}


def busy(waiting: int) -> Refused:
    """Return the error for a full queue."""
    return Refused(f"the server is busy: {waiting} requests are waiting; try again later", 429, BUSY, code="busy")


def closing() -> Refused:
    """Return the error of a server that is shutting down."""
    return Refused("the server is shutting down", 503, SERVER, code="shutting_down")


def late(seconds: float) -> Refused:
    """Return the error of a request whose time is over."""
    return Refused(f"the request took longer than {seconds:g} seconds", 504, SERVER, code="timeout")


def refusal(error: BaseException) -> Refused:
    """Return the answer to an error: a client's mistake in its own words, no detail of the server's own faults."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ValueError):
        return Refused(str(error))
    if isinstance(error, RecursionError):
        return Refused("what was given is nested too deeply")
    return Refused("the server failed; its log says why", 500, SERVER, code="internal_error")
