"""Who is cut off: whoever does not reach most of the others."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest

from exchange.supervisor.reach import Reach

HERE, THERE, ELSEWHERE = ("here", 1), ("there", 1), ("elsewhere", 1)


class Writer:
    def close(self) -> None:
        pass


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException | None]:
    """What each host answers to somebody who connects; those that are not in it say nothing."""
    said: dict[str, BaseException | None] = {"here": None}

    async def connect(host: str, port: int) -> tuple[Any, Writer]:
        if host not in said:
            await asyncio.Event().wait()
        error = said[host]
        if error is not None:
            raise error
        return None, Writer()

    monkeypatch.setattr(asyncio, "open_connection", connect)
    return said


async def test_one_that_reaches_itself_alone_is_cut_off(answers: dict[str, BaseException | None]) -> None:
    assert await Reach([HERE, THERE, ELSEWHERE]).is_cut_off()
    answers["there"] = OSError(errno.EHOSTUNREACH, "no route")
    assert await Reach([HERE, THERE, ELSEWHERE]).is_cut_off()


@pytest.mark.parametrize("answer", [None, ConnectionRefusedError()])
async def test_one_that_reaches_another_machine_is_not(
    answers: dict[str, BaseException | None], answer: BaseException | None
) -> None:
    answers["there"] = answer
    assert not await Reach([HERE, THERE, ELSEWHERE]).is_cut_off()


async def test_of_two_nodes_nobody_can_tell(answers: dict[str, BaseException | None]) -> None:
    assert not await Reach([HERE, THERE]).is_cut_off()
    assert not await Reach([HERE]).is_cut_off()
