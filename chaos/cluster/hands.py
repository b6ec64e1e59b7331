"""What an agent does on its own node: signals to processes there, and a look at them."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Sequence
from typing import Protocol

from chaos.run.watching import resident_mb
from exchange.processes import descendants, read_process, send_signal

_SUPERVISOR = "ray::SupervisorActor"
GONE = ""


class ProtectedProcess(PermissionError):
    """A signal would have ended who directs the experiment."""

    code = "PROTECTED_PROCESS"


class Hands(Protocol):
    """An agent's, here or behind Ray. Raises `NodeAway` where the node is."""

    async def signal(self, pid: int, number: int) -> None:
        """Raises `ProtectedProcess`."""
        ...

    async def state(self, pid: int) -> str:
        """Return the state of a process as /proc has it; `GONE` if it is not there, or dead."""
        ...

    async def memory_mb(self, pids: Sequence[int]) -> float: ...

    async def supervisors(self) -> list[int]:
        """Return the processes of the supervisors, which no status names."""
        ...

    async def end_node(self) -> None:
        """Kill Ray's process of the node and all that it has started, this one as well. It does not return."""
        ...


class NodeAway(ConnectionError):
    """A node, or its agent, is not there now."""

    code = "NODE_AWAY"


class NodeHands:
    """Those of the node that this process is on."""

    def __init__(self, protected: Collection[int] = ()) -> None:
        self._protected = {os.getpid(), os.getppid(), *protected}

    async def signal(self, pid: int, number: int) -> None:
        if pid <= 1 or pid in self._protected:
            raise ProtectedProcess(f"expected a process that the experiment can do without, was {pid}")
        send_signal(signal.Signals(number), [pid])

    async def state(self, pid: int) -> str:
        process = read_process(pid)
        return GONE if process is None or process.state == "Z" else process.state

    async def memory_mb(self, pids: Sequence[int]) -> float:
        return sum(map(resident_mb, pids))

    async def supervisors(self) -> list[int]:
        found = descendants(os.getppid())
        return [process.pid for process in found if process.command.startswith(_SUPERVISOR)]

    async def end_node(self) -> None:
        raylet = os.getppid()
        others = [process.pid for process in descendants(raylet) if process.pid != os.getpid()]
        # The raylet first: it is the parent of the others, and starts no new one then.
        send_signal(signal.SIGKILL, [raylet, *others, os.getpid()])
