"""The server as an ASGI application: the handlers of its paths."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from decoders.base.errors import require

from ..display import Readable
from ..text.constraints import KINDS
from ..text.gpt2 import GPT2
from . import completions
from .compiling import QUICK, Compiling, TooSlow
from .errors import Refused, busy, closing
from .limits import Limits
from .looking import distribution, inspected, page_and_rules
from .prometheus_metrics import Metrics
from .requests import Guard, answering, as_error, as_json, body, failed, unknown
from .scheduler import Scheduler
from .writing import Gone, Writing

Answer = TypeVar("Answer")
PAGES = 8  # inspection pages that are kept until they are opened
GRACE = 10.0  # seconds that running work has to finish


class Server(Readable):
    """One model behind the protocol: the state that the handlers share."""

    def __init__(self, model: GPT2, name: str, limits: Limits) -> None:
        require(model.has_tokenizer, "a server needs a model with a tokenizer", model.folder and model.folder.name)
        assert model.folder is not None
        self.model, self.name, self.limits = model, name, limits
        self.created = int(time.time())
        self.metrics = Metrics()
        self.scheduler = Scheduler(model, limits, self.metrics)
        # Each constraint is tried out for a moment first, so that those which take long stop only each other.
        times = {"constraints": min(QUICK, limits.constraint_seconds), "slow constraints": limits.constraint_seconds}
        self.compiling = {name: Compiling(model.folder, seconds) for name, seconds in times.items()}
        self.pages: OrderedDict[str, str] = OrderedDict()
        # Work that may take seconds has its own thread, one item after the other, and blocks nobody else.
        self.slow = {name: ThreadPoolExecutor(1, f"gpt2_np {name}") for name in (*times, "inspection")}
        self.pending = dict.fromkeys(self.slow, 0)

    def close(self, grace: float = 0.0) -> None:
        """Accept nothing more; running work has the given seconds to end."""
        self.scheduler.close(grace)

    def end(self) -> None:
        """Wait for all threads to end, and the other process."""
        self.close()
        self.scheduler.join(GRACE)
        for compiling in self.compiling.values():
            compiling.close()
        for pool in self.slow.values():
            pool.shutdown(wait=False, cancel_futures=True)

    async def slowly(self, name: str, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """Return the result of `work`, run in the thread of this name; `Refused` if too many requests wait for it."""
        if self.pending[name] >= self.limits.queue:
            raise busy(self.pending[name])
        self.pending[name] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.slow[name], work, *arguments)
        finally:
            self.pending[name] -= 1

    async def asked(self, given: dict[str, Any]) -> completions.Completions:
        """`read` in another thread."""
        if all(given.get(kind) is None for kind in KINDS):
            return await asyncio.to_thread(self.read, given)
        *first, last = self.compiling
        for name in first:
            with suppress(TooSlow):
                return await self.slowly(name, self.read, given, name)
        return await self.slowly(last, self.read, given, last)

    def read(self, given: dict[str, Any], compiling: str = "constraints") -> completions.Completions:
        """A completions request, checked, for the model that it names; its constraint is tried out there."""
        self.known(given.get("model"))
        return completions.read(given, self.scheduler.model, self.limits, self.compiling[compiling].check)

    def known(self, name: Any) -> None:
        """Raise `Refused` for a model that isn't served."""
        if name is not None and name != self.name:
            message = f"there is no model {str(name)[:100]!r} here, but {self.name!r}"
            raise Refused(message, 404, param="model", code="model_not_found")

    # ---- OpenAI's protocol -----------------------------------------------------------------------------------------

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        asked = await self.asked(await body(request, self.limits.body))
        writing = Writing(asked, self.scheduler.model, self.name, self.scheduler, self.limits)
        writing.start()
        try:
            if not asked.stream:
                return as_json(await writing.whole(request))
            first = await writing.first(request)
        except Gone:
            return Response(status_code=499)
        return EventSourceResponse(
            writing.stream(first),
            sep="\n",
            client_close_handler_callable=writing.gone,
            send_timeout=self.limits.seconds,
            shutdown_event=anyio.Event(),  # the scheduler ends what is in progress, and says so
            shutdown_grace_period=self.limits.seconds,
        )

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return as_json({"object": "list", "data": [self._described()]})

    async def one_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self.known(request.path_params["name"])
        return as_json(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "gpt2_np",
            "max_model_len": self.model.config.n_positions,
        }

    # ---- the tokenizer, as vLLM's server and lm-evaluation-harness have it ----------------------------------------

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        given = await body(request, self.limits.body)
        self.known(given.get("model"))
        text, marks = given.get("prompt"), given.get("add_special_tokens", True)
        if not isinstance(text, str):
            raise Refused("prompt must be a text", param="prompt")
        require(isinstance(marks, bool), "add_special_tokens must be true or false", marks)
        ids = await asyncio.to_thread(self.model.tokenizer.encode, text, add_special_tokens=marks)
        told = {"tokens": ids, "count": len(ids), "max_model_len": self.model.config.n_positions}
        if given.get("return_token_strs"):
            told["token_strs"] = self.model.tokenizer.tokens(ids)
        return as_json(told)

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        given = await body(request, self.limits.body)
        self.known(given.get("model"))
        ids = given.get("tokens")
        whole = isinstance(ids, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in ids)
        require(whole, "tokens must be a list of ids", ids)
        return as_json({"prompt": self.model.tokenizer.decode(ids)})  # type: ignore[arg-type]

    async def tokenizer_info(self, request: Request) -> Response:
        """GET /tokenizer_info."""
        config, tokenizer = self.model.config, self.model.tokenizer

        def mark(token: int | None) -> str | None:
            return None if token is None or token >= config.vocab_size else tokenizer.decode([token])

        return as_json(
            {
                "tokenizer_class": "GPT2Tokenizer",
                "bos_token": mark(config.bos_token_id),
                "eos_token": mark(next(iter(self.model.eos_token_ids), None)),
                "pad_token": mark(config.pad_token_id),
                "model_max_length": config.n_positions,
                "vocab_size": config.vocab_size,
                "chat_template": None,
            }
        )

    # ---- health and metrics ------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        """GET /health."""
        return as_json({"status": "ok"}) if self.scheduler.alive else as_error(closing())

    async def counted(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # ---- the page ----------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """GET /."""
        text, rules = page_and_rules()
        return HTMLResponse(text, headers={"Content-Security-Policy": rules, "Referrer-Policy": "no-referrer"})

    async def distribution(self, request: Request) -> Response:
        """POST /distribution: what may come next, before and after the options' processors."""
        given = await body(request, self.limits.body)
        given |= {"max_tokens": 1, "logprobs": given.get("logprobs", 20), "stream": False, "echo": False}
        asked = await self.asked(given)
        return as_json(await distribution(asked, self.scheduler, self.limits))

    async def inspect(self, request: Request) -> Response:
        """POST /inspect: make the inspection page of a text; its address is told."""
        given = await body(request, self.limits.body)
        self.known(given.get("model"))
        page = await self.slowly("inspection", inspected, self.model, given.get("prompt"), self.limits.page_tokens)
        name = secrets.token_urlsafe(24)
        self.pages[name] = page
        while len(self.pages) > PAGES:
            self.pages.popitem(last=False)
        return as_json({"url": f"{request.scope.get('root_path', '')}/inspect/{name}"}, 201)

    async def inspected(self, request: Request) -> Response:
        """GET /inspect/NAME: a page that was made."""
        page = self.pages.get(request.path_params["name"])
        if page is None:
            raise Refused("this page is gone: look inside again", 404, code="page_not_found")
        return HTMLResponse(page, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})

    def routes(self) -> list[Route]:
        """Every path."""
        table = [
            ("/", self.page, "GET"),
            ("/health", self.health, "GET"),
            ("/metrics", self.counted, "GET"),
            ("/v1/models", self.models, "GET"),
            ("/v1/models/{name:path}", self.one_model, "GET"),
            ("/v1/completions", self.completions, "POST"),
            ("/tokenize", self.tokenize, "POST"),
            ("/detokenize", self.detokenize, "POST"),
            ("/tokenizer_info", self.tokenizer_info, "GET"),
            ("/distribution", self.distribution, "POST"),
            ("/inspect", self.inspect, "POST"),
            ("/inspect/{name}", self.inspected, "GET"),
        ]
        return [Route(path, answering(handler), methods=[method]) for path, handler, method in table]


def create_app(
    model: GPT2,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    api_key: str | None = None,
    cors: Sequence[str] = (),
    hosts: Sequence[str] | None = None,
) -> Starlette:
    """The server of one model as an ASGI application, for uvicorn or to be mounted in another application.

    `name` is what the model is called (its folder's name unless given). Requests need `api_key` where there is one;
    pages of the origins in `cors` may ask; where `hosts` is given, only requests to these names are answered.
    ``app.state.server`` is the `Server`, whose threads end with the application's lifespan, or by ``close()``.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.server import Limits, create_app
        >>> app = create_app(model, limits=Limits(rows=16), api_key="secret")
        >>> app.state.server.end()
    """
    require(api_key is None or bool(api_key), "api_key must have at least one character", api_key)
    found = name or (model.folder.name if model.folder else "gpt2")
    server = Server(model, found, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.end)

    middleware = [Middleware(Guard, api_key=api_key, hosts=hosts)]
    if cors:
        allowed: dict[str, Any] = {"allow_origins": list(cors), "allow_methods": ["GET", "POST"]}
        middleware.insert(0, Middleware(CORSMiddleware, **allowed, allow_headers=["Authorization", "Content-Type"]))
    app = Starlette(
        routes=server.routes(),
        middleware=middleware,
        exception_handlers={HTTPException: unknown, Exception: failed},
        lifespan=lifespan,
    )
    app.state.server = server
    return app
