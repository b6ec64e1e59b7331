"""All faults that an experiment can name."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from difflib import get_close_matches

import msgspec

from chaos.experiment.model import FaultStep
from chaos.faults import by_hand, clients, clocks, disks, links, machines, places, signals
from chaos.faults.fault import FaultKind
from chaos.faults.injection import FaultNotInjected, FaultType, FaultUnknown, Injection, Wish
from chaos.worlds.clocks import COMPILER
from chaos.worlds.lab import Lab

_PROCESS = (
    "a process, by its name or role (`shard-0`, `shard-0-standby`, `gateway`, `ledger`, `supervisor`), or a market"
)
_UNDERNEATH = _PROCESS + "; with several nodes also `raylet`, `nats`, `gcs`"
_NODE = "a node (`node-1`), or that of a component; with several nodes"
_MACHINE = "a machine with a journal in files (`shard-0`, `ledger`)"
_LINKS = "the clients' links to a gateway, or to all (`gateway`); with `links: proxied`"
_POPULATION = "a population, or `everybody`"
_GONE = "the process is not in /proc"
_PASSED = "something that passes is held or delayed"
_TRACED = "a call that strace has changed"


def _place(
    kind: FaultKind, name: str, description: str, targets: str, shows: str, takes_back: str, *, needs_root: bool = False
) -> FaultType:
    def make(lab: Lab, wish: Wish, arguments: object) -> Injection:
        return places.place_fault(kind, lab, wish)

    return FaultType(
        name=name,
        description=description,
        targets=targets,
        make=make,
        shows=shows,
        takes_back=takes_back,
        needs_root=needs_root,
    )


_TYPES: Sequence[FaultType] = (
    FaultType(
        name="kill-process",
        description="SIGKILL, now, as its journal grows, or as it acknowledges; the exchange starts it again",
        targets=_PROCESS + "; with several nodes also `raylet`",
        make=signals.kill,
        arguments=signals.KillArguments,
        shows=_GONE,
    ),
    FaultType(
        name="pause-process",
        description="SIGSTOP",
        targets=_UNDERNEATH,
        make=signals.pause,
        shows="its state in /proc is T",
        takes_back="SIGCONT",
    ),
    FaultType(
        name="slow-process",
        description="SIGSTOP and SIGCONT by turns: alive, and slow",
        targets=_UNDERNEATH,
        make=signals.slow_process,
        arguments=signals.SlowProcessArguments,
        shows="it was seen stopped and going on, several times",
        takes_back="SIGCONT",
    ),
    FaultType(
        name="busy-machine",
        description="other processes compute, on as many cores as is said",
        targets="this machine",
        make=machines.busy_machine,
        arguments=machines.BusyArguments,
        shows="each has had time of a core",
        takes_back="they are killed",
    ),
    _place(
        FaultKind.KILL_NODE,
        "kill-node",
        "all processes of a node are killed",
        _NODE,
        "none of its processes is left",
        "it is started, and joins",
    ),
    _place(
        FaultKind.PAUSE_NODE,
        "pause-node",
        "all processes of a node are stopped",
        _NODE,
        "all of them are in state T",
        "SIGCONT to all; a node that Ray has given up meanwhile is started again",
    ),
    _place(
        FaultKind.CUT_LINK,
        "cut-link",
        "a node is off from everything",
        _NODE,
        "its address does not answer a connection",
        "the link is up, and it answers",
        needs_root=True,
    ),
    _place(
        FaultKind.CUT_PEERS,
        "cut-peers",
        "a node is off from the other nodes alone",
        _NODE,
        "no other node answers a connection of its",
        "the links are put back, and there is an answer",
        needs_root=True,
    ),
    _place(
        FaultKind.CUT_WAY,
        "cut-one-way",
        "what a node sends to the other nodes is lost; what they send arrives",
        _NODE,
        "no other node answers a connection of its",
        "the links are put back, and there is an answer",
        needs_root=True,
    ),
    _place(
        FaultKind.CUT_NATS,
        "cut-nats",
        "what a node sends to the NATS servers is lost; what they send arrives",
        _NODE,
        "no NATS server answers a connection of its",
        "the links are put back, and there is an answer",
        needs_root=True,
    ),
    _place(
        FaultKind.KILL_NATS,
        "kill-nats",
        "a NATS server is killed",
        "a server (`nats-0`); with journals in NATS",
        "nothing listens at its port",
        "it is started, and listens",
    ),
    _place(
        FaultKind.KILL_GCS,
        "kill-gcs",
        "Ray's head is killed",
        "`gcs`; with several nodes",
        "nothing listens at its port",
        "it is started, and listens",
    ),
    FaultType(
        name="planned-restart",
        description="`exchange maintenance restart`",
        targets="a shard, the ledger, a node, or `all`",
        make=by_hand.planned_restart,
        arguments=by_hand.RestartArguments,
        shows="the exchange says that its steps have ended, or begun",
    ),
    FaultType(
        name="hold-stage",
        description="`exchange stage hold`",
        targets="a shard or a market",
        make=by_hand.hold_stage,
        arguments=by_hand.HoldArguments,
        shows="the exchange has answered what it holds",
        takes_back="`exchange resume`",
    ),
    FaultType(
        name="bad-configuration",
        description="settings that hurt are rolled out; the exchange is to notice, and to take them back",
        targets="`exchange`",
        make=by_hand.bad_configuration,
        arguments=by_hand.SettingsArguments,
        shows="the rollout has reached its first step",
        takes_back="the settings of before, unless the exchange has done so",
    ),
    FaultType(
        name="slow-machine",
        description="each command takes several times as long, as with cold caches; needs `capacity_per_s`",
        targets="all shards",
        make=by_hand.slow_machine,
        arguments=by_hand.SlowArguments,
        shows="the settings that hold have the longer time",
        takes_back="the time of before",
    ),
    FaultType(
        name="slow-disk",
        description="each sync takes longer",
        targets=_PROCESS,
        make=disks.slow_disk,
        arguments=disks.SlowDiskArguments,
        shows=_TRACED,
        takes_back="strace lets go",
        needs_program=disks.STRACE,
    ),
    FaultType(
        name="full-disk",
        description="nothing can be written to its journal (ENOSPC)",
        targets=_MACHINE,
        make=disks.full_disk,
        shows=_TRACED,
        takes_back="strace lets go",
        needs_program=disks.STRACE,
    ),
    FaultType(
        name="failing-disk",
        description="no sync of its journal succeeds (EIO)",
        targets=_MACHINE,
        make=disks.failing_disk,
        shows=_TRACED,
        takes_back="strace lets go",
        needs_program=disks.STRACE,
    ),
    FaultType(
        name="torn-journal",
        description="it is killed, and half a record is left at the end of its journal",
        targets=_MACHINE,
        make=disks.torn_journal,
        shows="the process is gone, and the bytes are there",
    ),
    FaultType(
        name="flipped-journal",
        description="it is killed, and a byte of its journal is another one",
        targets=_MACHINE,
        make=disks.flipped_journal,
        arguments=disks.FlipArguments,
        shows="the process is gone; the byte before and now",
        takes_back="the byte, unless it was cut off or written over",
    ),
    FaultType(
        name=clocks.NAME,
        description="its wall clock jumps; monotonic clocks stay true",
        targets=_PROCESS,
        make=clocks.clock_jump,
        arguments=clocks.JumpArguments,
        shows="it has read the clock that is off",
        takes_back="the true time",
        needs_program=COMPILER,
    ),
    FaultType(
        name="latency",
        description="what passes is late",
        targets=_LINKS,
        make=links.latency,
        arguments=links.LatencyArguments,
        shows=_PASSED,
        takes_back="nothing is delayed any more",
    ),
    FaultType(
        name="loss",
        description="pieces are lost; as TCP sends them again, they and all behind them are late",
        targets=_LINKS,
        make=links.loss,
        arguments=links.LossArguments,
        shows=_PASSED,
        takes_back="nothing is lost any more",
    ),
    FaultType(
        name="bandwidth",
        description="only so much passes",
        targets=_LINKS,
        make=links.bandwidth,
        arguments=links.BandwidthArguments,
        shows=_PASSED,
        takes_back="all of it passes",
    ),
    FaultType(
        name="blackhole",
        description="connections are taken and nothing passes, in one direction or both",
        targets=_LINKS,
        make=links.blackhole,
        arguments=links.BlackholeArguments,
        shows=_PASSED,
        takes_back="what was held arrives, as from TCP once a link is back",
    ),
    FaultType(
        name="slow-close",
        description="who closes a connection is heard late",
        targets=_LINKS,
        make=links.slow_close,
        arguments=links.SlowCloseArguments,
        shows="a connection of our own is closed late",
        takes_back="closing is passed on at once",
    ),
    FaultType(
        name="reset-connections",
        description="all connections are reset; clients come back by themselves",
        targets=_LINKS,
        make=links.reset_connections,
        shows="how many were",
    ),
    FaultType(
        name="mass-cancel",
        description="all its clients cancel everything",
        targets=_POPULATION,
        make=clients.mass_cancel,
        shows="how many do",
    ),
    FaultType(
        name="reconnect-storm",
        description="all its clients drop their connections and come back",
        targets=_POPULATION,
        make=clients.reconnect_storm,
        shows="how many do",
    ),
    FaultType(
        name="slow-reader",
        description="readers of market data take nothing",
        targets="a gateway (`gateway-0`)",
        make=clients.slow_reader,
        arguments=clients.ReaderArguments,
        shows="each of their streams was served once",
        takes_back="they hang up",
    ),
)
CATALOGUE = {fault.name: fault for fault in _TYPES}


def fault_type(name: str) -> FaultType:
    """Return a kind of fault. Raises `FaultUnknown` if there is none of that name."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = get_close_matches(name, CATALOGUE, 1)
    raise FaultUnknown(
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
