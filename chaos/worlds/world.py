"""The exchange that faults are done to, as the lab sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from chaos.faults.fault import FaultKind, Injector, Target
from chaos.faults.processes import PAUSE_S, ProcessKiller, ProcessPauser
from chaos.invariants.history import FileHistory, History
from exchange.config import ExchangeConfig
from exchange.processes import Process, descendants

ROLES = ("shard", "ledger", "standby", "gateway", "supervisor")
_SUPERVISOR = "ray::SupervisorActor"


class World(Protocol):
    """An exchange that runs, and the faults that can be done to it."""

    @property
    def operator_key(self) -> str: ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of the gateways."""
        ...

    @property
    def machines(self) -> Mapping[str, str]:
        """Each machine's kind: "shard", "ledger" or "control"."""
        ...

    @property
    def left_out(self) -> Sequence[str]:
        """Which faults cannot be done to it here, and why."""
        ...

    @property
    def injectors(self) -> Sequence[Injector]: ...

    @property
    def roles(self) -> Mapping[FaultKind, Sequence[str]]:
        """Which roles each kind of fault is done to, in turn."""
        ...

    def unlisted_targets(self) -> Sequence[Target]:
        """Return the targets that the exchange's status does not name."""
        ...

    def underneath(self) -> Sequence[Target]:
        """Return the processes that the exchange stands on, and that can be stopped for a while."""
        ...

    def evidence(self, kind: FaultKind, name: str) -> str:
        """Return what is seen of a fault that is in effect; "" if nothing is. It is looked for, not remembered."""
        ...

    def history(self, directory: Path) -> History:
        """Return what gathers the history of the journals into a directory."""
        ...

    def start(self) -> None: ...

    def stop_exchange(self) -> None:
        """Stop all that writes; journals can still be read."""
        ...

    def stop(self) -> None:
        """Stop everything, whatever state it is in."""
        ...


class LocalWorld:
    """One node, `file` journals; standbys take over, the supervisor starts them again, and Ray the supervisors."""

    def __init__(
        self, config: ExchangeConfig, *, supervisor_too: bool = True, pause_s: tuple[float, float] = PAUSE_S
    ) -> None:
        from exchange.cluster import LocalExchange  # imports Ray

        self._exchange = LocalExchange(config)
        self._supervisor_too = supervisor_too
        self._pause_s = pause_s
        self.addresses: tuple[str, ...] = ()

    @property
    def operator_key(self) -> str:
        return self._exchange.operator_key

    @property
    def machines(self) -> Mapping[str, str]:
        shards = dict.fromkeys(self._exchange.config.shard_names, "shard")
        return {"ledger": "ledger", "supervisor": "control", **shards}

    @property
    def left_out(self) -> Sequence[str]:
        return ()

    @property
    def injectors(self) -> Sequence[Injector]:
        return ProcessKiller(), ProcessPauser(self._pause_s)

    @property
    def roles(self) -> Mapping[FaultKind, Sequence[str]]:
        roles = [role for role in ROLES if self._supervisor_too or role != "supervisor"]
        return {FaultKind.KILL_PROCESS: roles, FaultKind.PAUSE_PROCESS: roles}

    def unlisted_targets(self) -> Sequence[Target]:
        return supervisors_among(descendants(os.getpid()))

    def underneath(self) -> Sequence[Target]:
        """Return nothing: without its only raylet and GCS this process ends, too."""
        return ()

    def evidence(self, kind: FaultKind, name: str) -> str:
        return ""

    def start(self) -> None:
        self._exchange.start()
        self._exchange.wait(complete=True)
        components = self._exchange.status().components
        self.addresses = tuple(c.address for c in components if c.name.startswith("gateway"))

    def history(self, directory: Path) -> History:
        data = self._exchange.config.data_dir
        return FileHistory(directory, {machine: [data / machine] for machine in self.machines})

    def stop_exchange(self) -> None:
        self._exchange.stop()

    def stop(self) -> None:
        self._exchange.stop()


def supervisors_among(processes: Sequence[Process], node: str = "") -> list[Target]:
    """Return the supervisors, which no status names."""
    found = [process for process in processes if process.command.startswith(_SUPERVISOR)]
    return [Target("supervisor", "supervisor", process.pid, node) for process in found]
