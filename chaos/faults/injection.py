"""What an experiment does to an exchange: each fault takes effect, proves it, and is taken back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from chaos.worlds.lab import Lab


class FaultNotInjected(RuntimeError):
    """A fault did not take effect, so whatever was seen says nothing of it."""

    code = "FAULT_NOT_INJECTED"


class FaultUnknown(FaultNotInjected):
    """No fault of the catalogue has this name; the message has the nearest."""

    code = "FAULT_UNKNOWN"


class TargetUnknown(FaultNotInjected):
    """What a fault is to be done to is not there; the message says what is."""

    code = "TARGET_UNKNOWN"


class RollbackFailed(RuntimeError):
    """What a fault did could not be taken back; somebody must look after it."""

    code = "ROLLBACK_FAILED"


class Injection(Protocol):
    """One fault that is done once. What `inject` has begun is taken back by `rollback`, done in full or not."""

    @property
    def target(self) -> str:
        """What it is done to, by name."""
        ...

    async def inject(self) -> None: ...

    async def proof(self) -> str:
        """Return what shows that it took effect. Raises `FaultNotInjected`."""
        ...

    async def rollback(self) -> None:
        """Raises `RollbackFailed`. Doing it twice is allowed."""
        ...


class NoArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


@dataclass(frozen=True, slots=True)
class Wish:
    """A fault as an experiment asks for it. `lasts_s`: until it is taken back; 0: it is not. `chance` is seeded."""

    target: str
    lasts_s: float
    chance: random.Random


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultType:
    """A kind of fault."""

    name: str
    description: str
    targets: str
    """What it can be done to, in words."""
    make: Callable[[Lab, Wish, Any], Injection]
    """Raises `FaultNotInjected` if there is nothing to do it to."""
    shows: str
    """What its proof shows, in words."""
    takes_back: str = ""
    """What its rollback does, in words; empty: there is nothing to take back."""
    arguments: type[msgspec.Struct] = NoArguments
    needs_root: bool = False
    needs_program: str = ""

    @property
    def lasts(self) -> bool:
        """Whether it is taken back after its time."""
        return bool(self.takes_back)

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be there to do it, in words."""
        return (*(("root",) if self.needs_root else ()), *((self.needs_program,) if self.needs_program else ()))
