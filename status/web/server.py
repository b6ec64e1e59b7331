"""The public port: uvicorn with limits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn

from status.web.app import create_app
from status.web.source import Publisher

CONNECTIONS_MAX = 25_000
"""More than that get 503. Those who watch events are among them."""
IDLE_S = 15
HEADERS_MAX = 16_384


class Server(uvicorn.Server):
    """Leaves signals to the process, which has more to end than this."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(publisher: Publisher, host: str, port: int) -> Server:
    """To be run by `await server.serve()`, and ended by `server.should_exit = True`.

    Behind a proxy of one's own, uvicorn takes the address of the client from `X-Forwarded-For` if the proxy is on this
    machine (its `FORWARDED_ALLOW_IPS` names others).
    """
    config = uvicorn.Config(
        create_app(publisher),
        host=host,
        port=port,
        loop="none",
        http="auto",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        limit_concurrency=CONNECTIONS_MAX,
        backlog=4096,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=HEADERS_MAX,
    )
    return Server(config)
