"""The snapshot as files."""

from __future__ import annotations

import asyncio
import contextlib
import json
from html.parser import HTMLParser
from pathlib import Path

from status.web.snapshot import KEPT, Snapshot
from tests.status.web import scenes
from tests.status.web.scenes import NOW_NS, FakePublisher


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in {"href", "src"} and value]


def test_every_link_of_every_page_leads_to_a_file(tmp_path: Path) -> None:
    root = Snapshot(tmp_path, lambda: NOW_NS).write(scenes.maintenance())
    pages = list(root.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        links = Links()
        links.feed(page.read_text())
        for link in links.found:
            assert not link.startswith(("/", "http")), f"{page.name}: {link}"
            target = link.partition("#")[0]
            assert not target or (page.parent / target).resolve().is_file(), f"{page.name}: {link}"
    summary = json.loads((root / "api/v2/summary.json").read_text())
    assert summary["status"]["indicator"] == "maintenance"
    assert json.loads((root / "api/v5/system/status.json").read_text())["code"] == "0"


def test_the_link_always_leads_to_a_whole_snapshot_and_old_ones_go(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path, lambda: NOW_NS)
    board = scenes.operational()
    for _ in range(KEPT + 2):
        written = snapshot.write(board)
        assert (tmp_path / "current").resolve() == written.resolve()
        assert (tmp_path / "current" / "index.html").is_file()
    assert len([d for d in tmp_path.iterdir() if d.name.isdecimal()]) == KEPT


def test_hostile_ids_write_nothing_outside(tmp_path: Path) -> None:
    Snapshot(tmp_path / "public", lambda: NOW_NS).write(scenes.hostile())
    assert [path.name for path in tmp_path.iterdir()] == ["public"]
    assert not list(tmp_path.rglob("passwd*"))


async def test_a_change_is_written(tmp_path: Path) -> None:
    publisher = FakePublisher(scenes.operational())
    task = asyncio.create_task(Snapshot(tmp_path, lambda: NOW_NS).follow(publisher))
    page = tmp_path / "current" / "index.html"
    try:
        async with asyncio.timeout(30):
            while not page.exists():
                await asyncio.sleep(0.01)
            publisher.publish(scenes.incident())
            while "major outage" not in page.read_text():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
