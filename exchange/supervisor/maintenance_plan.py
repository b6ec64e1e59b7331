"""What planned maintenance does, and when it is refused: functions of what runs where."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from exchange.engine.control import standby_of
from exchange.engine.words import Stage
from exchange.supervisor.component import AUDITOR, SUPERVISOR, Component, ComponentState, Node


class Kind(IntEnum):
    """As `MaintenanceKind` in `admin.proto`."""

    RESTART = 1
    DRAIN = 2
    UNDRAIN = 3


class Action(IntEnum):
    """As `MaintenanceAction` in `admin.proto`."""

    RESTART = 1
    HAND_OVER = 2
    RESTART_STANDBY_SUPERVISOR = 3
    RESTART_ACTIVE_SUPERVISOR = 4


class State(IntEnum):
    """As `MaintenanceState` in `admin.proto`: of the whole, and of each step."""

    WAITING = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4
    UNFINISHED = 5
    """The supervisor was replaced meanwhile."""


@dataclass(frozen=True, slots=True)
class What:
    """What is asked for: of one node by its name, of one machine, or of everything."""

    kind: Kind
    node: str = ""
    machine: str = ""

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.node or self.machine or 'all'}"


@dataclass(frozen=True, slots=True)
class Step:
    """`component` is that which is restarted, or the machine that is handed over."""

    action: Action
    component: str


@dataclass(frozen=True, slots=True)
class View:
    """What runs where. The supervisors' nodes are ids; `standby_supervisor` is None where there is no second one, and
    "" where that does not answer, so that it may be anywhere."""

    components: Mapping[str, Component]
    nodes: Sequence[Node]
    drained: Collection[str]
    active_supervisor: str
    standby_supervisor: str | None
    is_ready: bool
    utilisation_max: float
    """Of what each machine can do. Above it, what waits during a handover takes long to catch up with."""

    @property
    def shards(self) -> list[Component]:
        return [c for c in self.components.values() if c.is_shard]

    def node_id(self, name: str) -> str | None:
        return next((node.id for node in self.nodes if node.name == name), None)

    def standby(self, machine: str) -> Component | None:
        """Return the machine's standby if it follows."""
        standby = self.components.get(standby_of(machine))
        return standby if standby is not None and standby.can_take_over else None


class MaintenanceRefused(Exception):
    """It would not be safe now, or there is nothing to do it with; `reason` is for programs."""

    code = "MAINTENANCE_REFUSED"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def plan(what: What, view: View) -> list[Step]:
    """Return the steps in order: standbys, so that what takes over is new, then their primaries, the ledger's first;
    then gateways, the auditor, and the supervisors, the active one last.

    A primary without a standby is restarted where it is, which only happens if that was forced.
    """
    if what.kind == Kind.UNDRAIN:
        return []
    node_id = view.node_id(what.node)
    everything = not what.node and not what.machine
    concerned = [
        c
        for c in view.components.values()
        if everything or (c.machine == what.machine if what.machine else c.node == node_id)
    ]
    steps = [Step(Action.RESTART, c.name) for c in concerned if c.is_standby]
    for component in concerned:
        if component.machine and not component.is_standby:
            action = Action.HAND_OVER if view.standby(component.machine) is not None else Action.RESTART
            steps.append(Step(action, component.name))
    steps += [Step(Action.RESTART, c.name) for c in concerned if c.is_gateway]
    steps += [Step(Action.RESTART, c.name) for c in concerned if c.name == AUDITOR]
    is_there = view.standby_supervisor is not None
    if is_there and (everything or (what.node and view.standby_supervisor in (node_id, ""))):
        steps.append(Step(Action.RESTART_STANDBY_SUPERVISOR, SUPERVISOR))
    if everything or (what.node and view.active_supervisor == node_id):
        steps.append(Step(Action.RESTART_ACTIVE_SUPERVISOR, SUPERVISOR))
        if is_there and what.kind == Kind.DRAIN:
            # It stands by from then on, still there; the other one moves it.
            steps.append(Step(Action.RESTART_STANDBY_SUPERVISOR, SUPERVISOR))
    return steps


def node_for_standby_supervisor(nodes: Sequence[Node], drained: Collection[str], active: str, standby: str) -> str:
    """Return the id of the node to which the supervisor that stands by is to move, "" if it stays where it is.

    `active` and `standby` are the ids of the nodes of the two. It goes to the active one's if there is no other.
    """
    if not any(node.id == standby and node.name in drained for node in nodes):
        return ""
    free = [node.id for node in nodes if node.name not in drained]
    return next((node for node in free if node != active), next(iter(free), ""))


def left_on(node: str, view: View) -> list[str]:
    """Return what still runs on the node of this name, or may do so for all that is known."""
    node_id = view.node_id(node)
    if node_id is None:
        return []
    left = [c.name for c in view.components.values() if c.process is not None and c.node == node_id]
    left += [SUPERVISOR] * [view.active_supervisor, view.standby_supervisor].count(node_id)
    if view.standby_supervisor == "":
        left.append(f"{SUPERVISOR} (the one that stands by may be there: it does not answer)")
    return left


def check_names(what: What, view: View) -> None:
    """Raise `MaintenanceRefused` if what is asked for does not exist. Nothing can force that."""
    known = {node.name for node in view.nodes} | set(view.drained)
    if what.node and what.node not in known:
        message = f"expected the name of a node, one of {', '.join(sorted(known))}, was {what.node!r}"
        raise MaintenanceRefused("NODE_UNKNOWN", message)
    machines = [c.name for c in view.components.values() if c.machine == c.name]
    if what.machine and what.machine not in machines:
        message = f"expected a shard or the ledger, one of {', '.join(machines)}, was {what.machine!r}"
        raise MaintenanceRefused("SHARD_UNKNOWN", message)
    if what.kind != Kind.RESTART and not what.node:
        raise MaintenanceRefused("NODE_UNKNOWN", f"{what.kind.name.lower()}: expected a node, found none named")
    left = {node.name for node in view.nodes} - set(view.drained) - {what.node}
    if what.kind == Kind.DRAIN and not left:
        raise MaintenanceRefused("ONLY_NODE", f"{what.node} is the only node: there is none to move to")


def check_safe(what: What, steps: Sequence[Step], view: View) -> None:
    """Raise `MaintenanceRefused` if these steps would stop trading for longer than a handover takes."""
    if what.kind == Kind.UNDRAIN:
        return
    closed = [c for c in view.shards if c.state != ComponentState.UP or c.vitals.get("stage") != Stage.OPEN]
    # One that is to be restarted alone may be closed: nothing else is closed by it.
    for shard in closed:
        if shard.name != what.machine:
            stage = Stage(shard.vitals["stage"]).name if shard.vitals.get("stage") else shard.state.name
            message = f"{shard.name}: expected OPEN, was {stage}: one shard at a time may be closed"
            raise MaintenanceRefused("SHARD_NOT_OPEN", message)
    for component in view.components.values():
        is_due = any(step.component == component.name for step in steps)
        if component.machine and not component.is_standby and is_due and view.standby(component.machine) is None:
            message = f"{component.name}: expected a standby that follows, found none: it would be away while it starts"
            raise MaintenanceRefused("STANDBY_MISSING", message)
    if not view.is_ready:
        away = ", ".join(c.name for c in view.components.values() if c.state != ComponentState.UP and not c.is_spare)
        message = f"expected everything to be up, was not: {away or 'some have not heard where the others are'}"
        raise MaintenanceRefused("NOT_READY", message)
    gateways = [c for c in view.components.values() if c.is_gateway and c.is_up]
    if len(gateways) == 1 and any(step.component == gateways[0].name for step in steps):
        message = f"{gateways[0].name} is the only gateway: its clients would have nowhere to go while it restarts"
        raise MaintenanceRefused("ONLY_GATEWAY", message)
    for component in view.components.values():
        # Of a core, or of the capacity that the host itself has measured.
        utilisation = max(component.utilisation, (component.vitals.get("load") or {}).get("utilisation", 0.0))
        if component.machine and utilisation > view.utilisation_max:
            used = f"expected at most {view.utilisation_max:.0%} of it in use, was {utilisation:.0%}"
            message = f"{component.name}: {used}: come back when it is calm"
            raise MaintenanceRefused("BUSY", message)
