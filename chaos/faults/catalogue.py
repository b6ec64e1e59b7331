"""All faults that an experiment can name."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from difflib import get_close_matches

import msgspec

from chaos.experiment.model import FaultStep
from chaos.faults import by_hand, clients, clocks, disks, links, places, signals
from chaos.faults.fault import FaultKind
from chaos.faults.injection import FaultNotInjected, FaultType, Injection, Wish
from chaos.worlds.clocks import COMPILER
from chaos.worlds.lab import Lab

_PROCESS = "a process, by its name or role (shard-0, shard-0-standby, gateway, ledger, supervisor)"
_NODE = "a node (node-1), or that of a component"
_MACHINE = "a machine with a journal in files (shard-0, ledger)"
_POPULATION = "a population, or `everybody`"
_LINKS = "a gateway, or `gateway` for all; with `links: proxied`"


def _place(kind: FaultKind, name: str, description: str, targets: str, *, needs_root: bool = False) -> FaultType:
    def make(lab: Lab, wish: Wish, arguments: object) -> Injection:
        return places.place_fault(kind, lab, wish)

    return FaultType(name, description, targets, make, needs_root=needs_root)


_TYPES: Sequence[FaultType] = (
    FaultType(
        "kill-process",
        "SIGKILL, now, as its journal grows, or as it acknowledges",
        _PROCESS,
        signals.kill,
        signals.KillArguments,
        lasts=False,
    ),
    FaultType("pause-process", "SIGSTOP, and SIGCONT in the end", _PROCESS, signals.pause),
    _place(FaultKind.KILL_NODE, "kill-node", "all processes of a node are killed; it comes back in the end", _NODE),
    _place(FaultKind.PAUSE_NODE, "pause-node", "all processes of a node are stopped", _NODE),
    _place(FaultKind.CUT_LINK, "cut-link", "a node is off from everything", _NODE, needs_root=True),
    _place(FaultKind.CUT_PEERS, "cut-peers", "a node is off from the other nodes alone", _NODE, needs_root=True),
    _place(FaultKind.KILL_NATS, "kill-nats", "a NATS server is killed; it is started in the end", "a server (nats-0)"),
    _place(FaultKind.KILL_GCS, "kill-gcs", "Ray's head is killed; it is started in the end", "gcs"),
    FaultType(
        "planned-restart",
        "`exchange maintenance restart`",
        "a shard, the ledger, a node, or `all`",
        by_hand.planned_restart,
        by_hand.RestartArguments,
        lasts=False,
    ),
    FaultType(
        "hold-stage",
        "`exchange stage hold`, and `exchange resume` in the end",
        "a shard or a market",
        by_hand.hold_stage,
        by_hand.HoldArguments,
    ),
    FaultType(
        "bad-configuration",
        "settings that hurt are rolled out; taken back in the end if the exchange has not done so",
        "exchange",
        by_hand.bad_configuration,
        by_hand.SettingsArguments,
    ),
    FaultType(
        "slow-machine",
        "each command takes several times as long, in all shards; needs `capacity_per_s`",
        "the shards",
        by_hand.slow_machine,
        by_hand.SlowArguments,
    ),
    FaultType(
        "slow-disk",
        "each sync takes longer",
        _PROCESS,
        disks.slow_disk,
        disks.SlowDiskArguments,
        needs_program=disks.STRACE,
    ),
    FaultType(
        "full-disk", "nothing can be written to its journal", _MACHINE, disks.full_disk, needs_program=disks.STRACE
    ),
    FaultType(
        "failing-disk", "no sync of its journal succeeds", _MACHINE, disks.failing_disk, needs_program=disks.STRACE
    ),
    FaultType(
        "torn-journal",
        "it is killed, and half a record is left at the end of its journal",
        _MACHINE,
        disks.torn_journal,
        lasts=False,
    ),
    FaultType(
        clocks.NAME,
        "its wall clock jumps, and back in the end; monotonic clocks stay true",
        _PROCESS,
        clocks.clock_jump,
        clocks.JumpArguments,
        needs_program=COMPILER,
    ),
    FaultType("latency", "what passes is late", _LINKS, links.latency, links.LatencyArguments),
    FaultType("bandwidth", "only so much passes", _LINKS, links.bandwidth, links.BandwidthArguments),
    FaultType(
        "blackhole", "nothing passes, in one direction or both", _LINKS, links.blackhole, links.BlackholeArguments
    ),
    FaultType("reset-connections", "all connections are reset", _LINKS, links.reset_connections, lasts=False),
    FaultType("mass-cancel", "all its clients cancel everything", _POPULATION, clients.mass_cancel, lasts=False),
    FaultType(
        "reconnect-storm",
        "all its clients drop their connections and come back",
        _POPULATION,
        clients.reconnect_storm,
        lasts=False,
    ),
    FaultType(
        "slow-reader",
        "readers of market data take nothing",
        "a gateway (gateway-0)",
        clients.slow_reader,
        clients.ReaderArguments,
    ),
)
CATALOGUE = {fault.name: fault for fault in _TYPES}


def fault_type(name: str) -> FaultType:
    """Return a kind of fault. Raises `FaultNotInjected` if there is none of that name."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = get_close_matches(name, CATALOGUE, 1)
    raise FaultNotInjected(
        f"expected a fault of the catalogue, was {name!r}" + (f"; the nearest is {near[0]}" if near else "")
    )


def check(step: FaultStep) -> msgspec.Struct:
    """Return the arguments of a step. Raises `FaultNotInjected` if what it names cannot be done here."""
    kind = fault_type(step.fault)
    if kind.needs_root and os.geteuid():
        raise FaultNotInjected(f"{step.fault}: expected to be root, as links of nodes are cut, was user {os.geteuid()}")
    if kind.needs_program and shutil.which(kind.needs_program) is None:
        raise FaultNotInjected(f"{step.fault}: expected the program {kind.needs_program}, found none: install it")
    try:
        return msgspec.convert(step.arguments, kind.arguments)
    except msgspec.ValidationError as error:
        raise FaultNotInjected(f"{step.fault}: arguments: {error}") from error


def make(lab: Lab, step: FaultStep, chance: random.Random) -> Injection:
    """Return a fault that is ready to be injected. Raises `FaultNotInjected`."""
    arguments = check(step)
    return fault_type(step.fault).make(lab, Wish(step.target, step.for_s, chance), arguments)
