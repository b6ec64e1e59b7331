"""The wall clock of a process jumps."""

from __future__ import annotations

import asyncio

import msgspec

from chaos.faults.fault import Target
from chaos.faults.injection import FaultNotInjected, Wish
from chaos.faults.signals import find
from chaos.worlds.clocks import Clocks
from chaos.worlds.lab import Lab

NAME = "clock-jump"
EFFECT_S_MAX = 10.0
POLL_S = 0.02


class JumpArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by_s: float
    """Ahead; less than 0: back."""


class ClockJump:
    """Another jump takes it back."""

    def __init__(self, clocks: Clocks, target: Target, by_s: float) -> None:
        self._clocks = clocks
        self._pid = target.pid
        self._by_s = by_s
        self.target = target.name

    async def inject(self) -> None:
        self._clocks.move(self._pid, self._by_s)

    async def proof(self) -> str:
        try:
            async with asyncio.timeout(EFFECT_S_MAX):
                while not (reads := self._clocks.reads(self._pid)):
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise FaultNotInjected(f"expected process {self._pid} to read its clock, it did not") from error
        return f"process {self._pid} has read a clock that is {self._by_s:+g} s off, {reads:,} times so far"

    async def rollback(self) -> None:
        self._clocks.move(self._pid, 0.0)


def clock_jump(lab: Lab, wish: Wish, arguments: JumpArguments) -> ClockJump:
    if lab.clocks is None:
        raise FaultNotInjected("expected an exchange that the lab has started with clocks that can be moved")
    return ClockJump(lab.clocks, find(lab, wish), arguments.by_s)
