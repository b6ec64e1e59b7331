"""A real Chromium, against the status service on a port of its own with a publisher that the test moves."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from status.model import Board
from status.web.server import server
from tests.status.web.scenes import FakePublisher

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.slow)


@dataclass
class Site:
    publisher: FakePublisher
    url: str
    publish: Callable[[Board], None]
    stop: Callable[[], None]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


class Running:
    """The service in a thread with a loop of its own."""

    def __init__(self, board: Board, port: int = 0) -> None:
        self.publisher = FakePublisher(board)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = server(self.publisher, "127.0.0.1", 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="status-http")

    def _run(self) -> None:
        self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))
        self._loop.close()

    def publish(self, board: Board) -> None:
        self._loop.call_soon_threadsafe(self.publisher.publish, board)

    def __enter__(self) -> Site:
        self._thread.start()
        return Site(self.publisher, self.url, self.publish, self.stop)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    running: list[Running] = []

    def start(board: Board, port: int = 0) -> Site:
        running.append(Running(board, port))
        return running[-1].__enter__()

    yield start
    for one in running:
        one.__exit__()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium), or its path in CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def now_ns() -> int:
    return time.time_ns()
