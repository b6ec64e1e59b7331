"""What becomes of a break that the auditor finds: an alarm with the evidence, and the shards involved stop trading.

A break is journaled with the hold, so that it is an alarm once, whatever is restarted, and an operator who has opened a
shard again finds it open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from exchange.engine.control import Control, ControlResult, NoteBreak

REASON_LENGTH_MAX = 200
RETRY_S = 0.5

_log = structlog.get_logger()


class Alarms:
    """`decide` journals a command of the control machine; that shards are where they are held, others see to."""

    def __init__(
        self,
        machine: Callable[[], Control],
        decide: Callable[[Any], Awaitable[ControlResult]],
    ) -> None:
        self._machine = machine
        self._decide = decide
        self._task: asyncio.Task[None] | None = None
        self._retry_s = 0.0

    def see(self, breaks: Sequence[dict[str, Any]], now_s: float) -> None:
        """Begin what breaks, as the auditor's ping has them, make necessary; it never waits and never raises."""
        if self._task is not None:
            if not self._task.done():
                return
            error = self._task.exception()
            self._task = None
            if error is not None:
                _log.warning("audit.hold_failed", error=repr(error))
                self._retry_s = now_s + RETRY_S
        new = [found for found in breaks if found["key"] not in self._machine().breaks]
        if new and now_s >= self._retry_s:
            self._task = asyncio.create_task(self._raise_all(new))

    async def _raise_all(self, new: list[dict[str, Any]]) -> None:
        for found in new:
            reason = f"audit: {found['summary']}"[:REASON_LENGTH_MAX]
            shards = tuple(found["shards"])
            result = await self._decide(NoteBreak(found["key"], shards, reason))
            if not result.duplicate:
                _log.error("audit.break", **found)

    async def stop(self) -> None:
        """Begin nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
