"""When a supervisor that stands by becomes the active one, from what the other one says of itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple

ASK_INTERVAL_S = 0.1
ASK_TIMEOUT_S = 0.5
CUT_OFF_MAX_S = 10.0
"""How long one waits for the other that finds most nodes out of reach, too: rather than they, it is cut off itself."""
FIRST_START_S = 60.0
"""How long number 1 waits for one that it never heard, which may just be starting."""


class Lead(NamedTuple):
    """What a supervisor says of itself. `pid` is 0 where it cannot be killed from: on another machine."""

    is_active: bool
    pid: int
    has_let_go: bool = False
    """Of the journal, for the other one to take."""


class Absence(Enum):
    """Why a supervisor says nothing."""

    NOT_STARTED = "not started"
    """Or gone for so long that nothing knows it any more."""
    DEAD = "dead"
    SILENT = "silent"
    """It may hang, be started again, or be out of reach."""
    CUT_OFF = "cut off"
    """It says nothing, and most nodes are out of reach as well."""


class Turn:
    """Decides for number 0 or 1. Where neither is active it is 0's turn, which 1 therefore leaves to it. One that has
    let go of the journal leaves it to the other, whichever that is.

    The journal's fence makes a wrong decision safe: if both become active, the earlier one finds itself fenced.
    """

    def __init__(self, number: int, silence_max_s: float, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.other_pid = 0
        """Who must be gone before we take a journal in files, as it may only hang; 0: nobody."""
        self._goes_first = number == 0
        self._silence_max_s = silence_max_s
        self._monotonic_s = monotonic_s
        self._limit_s = 0.0 if self._goes_first else FIRST_START_S
        self._heard_s = monotonic_s()

    def hear(self, said: Lead | Absence) -> bool:
        """Take what the other one says now; return whether it is our turn."""
        if isinstance(said, Lead):
            self._heard_s, self._limit_s = self._monotonic_s(), self._silence_max_s
            is_ours = said.has_let_go or (self._goes_first and not said.is_active)
            self.other_pid = 0 if is_ours else said.pid
            return is_ours
        if said == Absence.NOT_STARTED and self._goes_first:
            return True
        limit_s = max(self._limit_s, CUT_OFF_MAX_S) if said == Absence.CUT_OFF else self._limit_s
        return said == Absence.DEAD or self._monotonic_s() - self._heard_s > limit_s

    async def wait(
        self, ask: Callable[[], Awaitable[Lead | Absence]], is_cut_off: Callable[[], Awaitable[bool]]
    ) -> None:
        """Ask the other one until it is our turn."""
        while True:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    said = await ask()
            except TimeoutError:
                said = Absence.SILENT
            if said == Absence.SILENT and await is_cut_off():
                said = Absence.CUT_OFF
            if self.hear(said):
                return
            await asyncio.sleep(ASK_INTERVAL_S)
