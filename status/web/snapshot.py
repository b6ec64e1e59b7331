"""The static snapshot: every page and document as files, for any web server or object store to serve when we are gone.

A snapshot is a directory of its own, `DIR/SEQUENCE`; the symbolic link `DIR/current` is moved to it in one step, so
that a reader sees one board or the next, never a mixture.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from status.model import Board
from status.web.documents import HTML, Documents
from status.web.page import static_files
from status.web.source import Publisher, is_stale

KEPT = 3
"""Directories: a server that follows the link late still finds what it named."""
AT_LEAST_EVERY_S = 60.0
"""Written anew without a change too, so that the time of the last look in it is near."""


def files(board: Board, *, stale: bool) -> dict[str, bytes]:
    """By path below the root of a web server. The v5 status is the answer to no state given."""
    documents = Documents(board, stale=stale, snapshot=True)
    written: dict[str, bytes] = {f"static/{name}": content for name, content in static_files().values()}
    for path in documents.paths():
        route, asks, state = path.partition("?state=")
        if asks and state:
            continue
        document = documents.get(path)
        if document is None:
            continue
        name = "index" if route == "/" else route[1:]
        suffix = ".html" if document.media_type == HTML else ".json" if asks else ""
        written[f"{name}{suffix}"] = document.body
    return written


class Snapshot:
    """Writes below `directory`, which is private to it."""

    def __init__(self, directory: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._directory = directory
        self._now_ns = now_ns

    def write(self, board: Board) -> Path:
        """Returns the directory that `current` now leads to."""
        self._directory.mkdir(parents=True, exist_ok=True)
        earlier = sorted(int(d.name) for d in self._directory.iterdir() if d.is_dir() and d.name.isdecimal())
        target = self._directory / str((earlier[-1] if earlier else 0) + 1)
        aside = self._directory / "writing"
        shutil.rmtree(aside, ignore_errors=True)
        for name, content in files(board, stale=is_stale(board, self._now_ns())).items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        aside.rename(target)
        link = self._directory / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(target.name, target_is_directory=True)
        os.replace(link, self._directory / "current")
        for old in earlier[: max(0, len(earlier) + 1 - KEPT)]:
            shutil.rmtree(self._directory / str(old), ignore_errors=True)
        return target

    async def follow(self, publisher: Publisher) -> None:
        """Writes on every change, and at least every minute, until cancelled. Changes during a write are one write."""
        changed = asyncio.Event()
        changed.set()

        async def watch() -> None:
            async for _board in publisher.changes():
                changed.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            while True:
                try:
                    async with asyncio.timeout(AT_LEAST_EVERY_S):
                        await changed.wait()
                except TimeoutError:
                    pass
                changed.clear()
                await asyncio.to_thread(self.write, publisher.board())
