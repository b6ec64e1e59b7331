"""Long work: it is heard while somebody listens, and keeps nobody from leaving."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from chaos.run.background import in_background

GIVEN_UP = """
import asyncio, threading
from chaos.run.background import in_background

async def main():
    work = asyncio.create_task(in_background(threading.Event().wait))
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait([work])

asyncio.run(main())
print("left")
"""


async def test_what_it_returns_and_raises_is_heard() -> None:
    assert await in_background(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_background(lambda: 1 / 0)


async def test_a_process_ends_without_work_that_was_given_up() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", GIVEN_UP, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()
    assert printed == b"left\n"
