"""The web on a board that was made from looks."""

from __future__ import annotations

from pathlib import Path

from status.web.documents import Current
from tests.status.observed import SECOND, START
from tests.status.test_publisher import World


async def test_every_document_can_be_made_from_a_real_board(tmp_path: Path) -> None:
    world = World(tmp_path)
    current = Current(world.publisher, lambda: START + world.now_s * SECOND)
    before = current.documents()
    assert all(before.get(path) is not None for path in before.paths())
    await world.seconds(30)
    after = current.documents()
    assert after is not before
    assert all(after.get(path) is not None for path in after.paths())
    page = after.get("/")
    assert page is not None
    assert b"Everything works" in page.body
