"""The public HTTP application. No request changes anything: GET and HEAD alone are taken."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from status.web import okx
from status.web.documents import HTML, Current, Document, json_document
from status.web.events import HEARTBEAT_S, WATCHERS_MAX, Events
from status.web.page import static_files
from status.web.source import Publisher

URL_BYTES_MAX = 2048
V5_EVERY_S = 5.0
"""OKX gives `/api/v5/system/status` once in 5 s to each address."""
V5_ADDRESSES_MAX = 10_000

CACHE = b"public, max-age=1, stale-if-error=86400"
FOREVER = b"public, max-age=31536000, immutable"
SECURITY: list[tuple[bytes, bytes]] = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
CORS: list[tuple[bytes, bytes]] = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag"),
    (b"cross-origin-resource-policy", b"cross-origin"),
]
_PREFLIGHT: list[tuple[bytes, bytes]] = [
    (b"access-control-allow-methods", b"GET, HEAD"),
    (b"access-control-allow-headers", b"Last-Event-ID, If-None-Match, Cache-Control"),
    (b"access-control-max-age", b"86400"),
]
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


def create_app(
    publisher: Publisher,
    *,
    now_ns: Callable[[], int] = time.time_ns,
    heartbeat_s: float = HEARTBEAT_S,
    watchers_max: int = WATCHERS_MAX,
) -> Starlette:
    """All of what the public port serves, from what `publisher` tells."""
    events = Events(publisher, now_ns=now_ns, heartbeat_s=heartbeat_s, watchers_max=watchers_max)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(events.run(), name="status-events")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    served = Middleware(_Public, current=Current(publisher, now_ns), events=events)
    return Starlette(lifespan=lifespan, middleware=[served])


class _Public:
    """Answers every HTTP request by itself, before any routing: most are a look into a dictionary."""

    def __init__(self, app: ASGIApp, current: Current, events: Events) -> None:
        self._app = app
        self._current = current
        self._events = events
        self._often = RateLimit(V5_EVERY_S, V5_ADDRESSES_MAX)
        self._static = {
            f"/static/{name}": Document(content, _TYPES[name.rpartition(".")[2]])
            for name, content in static_files().values()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        query: bytes = scope["query_string"]
        if len(scope.get("raw_path") or path.encode()) + len(query) > URL_BYTES_MAX:
            await _fail(scope, send, 414, "URL_TOO_LONG", f"expected a URL of at most {URL_BYTES_MAX} bytes")
        elif scope["method"] == "OPTIONS":
            await _send(send, 204, [*CORS, *_PREFLIGHT], b"")
        elif scope["method"] not in {"GET", "HEAD"}:
            words = f"expected GET or HEAD, was {scope['method'][:20]}: nothing can be changed here"
            await _fail(scope, send, 405, "METHOD_NOT_ALLOWED", words, [(b"allow", b"GET, HEAD, OPTIONS")])
        elif path == "/api/events":
            await self._events.serve(scope, receive, _with_headers(send))
        elif path == "/api/v5/system/status":
            await self._v5(scope, send)
        elif (document := self._static.get(path)) is not None:
            await _serve(scope, send, document, FOREVER)
        elif path != "/404" and (document := self._current.documents().get(path)) is not None:
            await _serve(scope, send, document, CACHE)
        else:
            await self._not_found(scope, send)

    async def _v5(self, scope: Scope, send: Send) -> None:
        state = ""
        for pair in scope["query_string"].split(b"&"):
            name, _, value = pair.partition(b"=")
            if name == b"state":
                state = value.decode("ascii", "replace")
        address = (scope.get("client") or ("", 0))[0]
        if state and state not in okx.STATES:
            message = f"Parameter state error: expected one of {', '.join(okx.STATES)}"
            await _serve(scope, send, json_document(okx.error("51000", message)), b"no-store", status=400)
        elif not self._often.take(address, time.monotonic()):
            extra = [(b"retry-after", b"5")]
            refused = json_document(okx.error("50011", "Too Many Requests: expected at most one in 5 s"))
            await _serve(scope, send, refused, b"no-store", status=429, extra=extra)
        else:
            document = self._current.documents().get(f"/api/v5/system/status?state={state}")
            assert document is not None  # one for each state
            await _serve(scope, send, document, CACHE)

    async def _not_found(self, scope: Scope, send: Send) -> None:
        page = self._current.documents().get("/404")
        if page is None or _is_for_programs(scope):
            await _fail(scope, send, 404, "NOT_FOUND", "expected a path that is in /api/openapi.json")
        else:
            await _serve(scope, send, page, b"no-store", status=404)


class RateLimit:
    """One request in `every_s` for each address, of which the last `addresses_max` are remembered."""

    def __init__(self, every_s: float, addresses_max: int) -> None:
        self._every_s = every_s
        self._addresses_max = addresses_max
        self._last: OrderedDict[str, float] = OrderedDict()

    def take(self, address: str, now_s: float) -> bool:
        last = self._last.get(address)
        if last is not None and now_s - last < self._every_s:
            return False
        self._last[address] = now_s
        self._last.move_to_end(address)
        if len(self._last) > self._addresses_max:
            self._last.popitem(last=False)
        return True


def _is_for_programs(scope: Scope) -> bool:
    return bool(scope["path"].startswith("/api/") or scope["path"].endswith((".json", ".svg")))


async def _serve(
    scope: Scope,
    send: Send,
    document: Document,
    cache: bytes,
    *,
    status: int = 200,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    etag = document.etag.encode()
    wanted = b""
    zipped = False
    for name, value in scope["headers"]:
        if name == b"if-none-match":
            wanted = value
        elif name == b"accept-encoding":
            zipped = document.gzipped is not None and _takes_gzip(value)
    headers = [(b"etag", etag), (b"cache-control", cache), (b"vary", b"Accept-Encoding"), *CORS, *(extra or ())]
    if status == 200 and wanted and (wanted.strip() == b"*" or etag[2:] in wanted):
        await _send(send, 304, headers, b"")
        return
    body = document.body
    if zipped and document.gzipped is not None:
        body = document.gzipped
        headers.append((b"content-encoding", b"gzip"))
    headers.append((b"content-type", document.media_type.encode()))
    headers.append((b"content-length", str(len(body)).encode()))
    await _send(send, status, headers, b"" if scope["method"] == "HEAD" else body)


def _takes_gzip(accepted: bytes) -> bool:
    for part in accepted.lower().split(b","):
        coding, _, parameters = part.partition(b";")
        if coding.strip() == b"gzip":
            return parameters.replace(b" ", b"") not in {b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"}
    return False


async def _fail(
    scope: Scope,
    send: Send,
    status: int,
    code: str,
    message: str,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """A small JSON for programs, a small page for people."""
    if _is_for_programs(scope):
        document = json_document({"code": code, "message": message})
    else:
        text = f"<!doctype html><html lang=en><title>{code}</title><h1>{status} {code}</h1><p>{_escaped(message)}</p>"
        document = Document(text.encode(), HTML)
    await _serve(scope, send, document, b"no-store", status=status, extra=extra)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *SECURITY]})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *CORS, *SECURITY]
        await send(message)

    return with_headers
