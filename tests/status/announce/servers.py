"""Servers that speak the protocols of the channels, on this machine; what they were told can be looked at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from aiosmtpd.controller import UnthreadedController
from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Answer = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def serving(path: str, answer: Answer) -> AsyncIterator[str]:
    """Serve one route on a free port; give the address."""
    app = Starlette(routes=[Route(path, answer, methods=["POST"])])
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()


@dataclass
class TelegramServer:
    """The part of the Bot API that is used: messages by id, with all that their text ever was."""

    token: str = "42:secret"
    messages: dict[int, list[str]] = field(default_factory=dict)
    refuse: list[dict[str, Any]] = field(default_factory=list)
    """Answers to give first, in place of doing what is asked; `status` is the HTTP status."""

    async def answer(self, request: Request) -> Response:
        if self.refuse:
            content = dict(self.refuse.pop(0))
            return JSONResponse(content, status_code=content.pop("status"))
        if request.path_params["bot"] != f"bot{self.token}":
            return JSONResponse({"ok": False, "error_code": 401, "description": "Unauthorized"}, status_code=401)
        fields = await request.json()
        if request.path_params["method"] == "sendMessage":
            number = len(self.messages) + 1
            self.messages[number] = [fields["text"]]
            return JSONResponse({"ok": True, "result": {"message_id": number}})
        texts = self.messages.get(fields["message_id"])
        if texts is None or texts[-1] == fields["text"]:
            why = "message to edit not found" if texts is None else "message is not modified"
            return JSONResponse({"ok": False, "error_code": 400, "description": f"Bad Request: {why}"}, status_code=400)
        texts.append(fields["text"])
        return JSONResponse({"ok": True, "result": {"message_id": fields["message_id"]}})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with serving("/{bot}/{method}", self.answer) as address:
            yield address


@dataclass
class SlackServer:
    messages: dict[str, list[str]] = field(default_factory=dict)

    async def answer(self, request: Request) -> Response:
        fields = await request.json()
        if request.headers["authorization"] != "Bearer xoxb-secret":
            return JSONResponse({"ok": False, "error": "invalid_auth"})
        if request.path_params["method"] == "chat.postMessage":
            ts = f"{len(self.messages) + 1}.0"
            self.messages[ts] = [fields["text"]]
            return JSONResponse({"ok": True, "ts": ts})
        self.messages[fields["ts"]].append(fields["text"])
        return JSONResponse({"ok": True, "ts": fields["ts"]})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with serving("/{method}", self.answer) as address:
            yield address


@dataclass
class WebhookServer:
    """Takes each delivery once, as a receiver should."""

    taken: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict)
    attempts: int = 0
    statuses: list[int] = field(default_factory=list)
    """To answer with first."""

    async def answer(self, request: Request) -> Response:
        self.attempts += 1
        if self.statuses:
            return Response(status_code=self.statuses.pop(0))
        delivery = request.headers["x-evenkeel-delivery"]
        self.taken.setdefault(delivery, (dict(request.headers), await request.body()))
        return Response(status_code=204)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with serving("/hook", self.answer) as address:
            yield f"{address}/hook"


@dataclass
class MailServer:
    """A real SMTP server; `codes` are what it says first of a message, in place of taking it."""

    mails: list[bytes] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.codes:
            return self.codes.pop(0)
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope.content)
        return "250 taken"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        controller = UnthreadedController(self, hostname="127.0.0.1", port=port, loop=asyncio.get_running_loop())
        server = await controller._create_server()
        try:
            yield port
        finally:
            server.close()
            await server.wait_closed()
