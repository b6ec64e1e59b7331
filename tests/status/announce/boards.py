"""Boards with an incident as it goes on."""

from __future__ import annotations

from msgspec.structs import replace

from status.model import Board, Component, ComponentStatus, Impact, Incident, IncidentStatus, Update

SECOND_NS = 1_000_000_000
BEGAN_NS = 1_795_640_000 * SECOND_NS
COMPONENT = Component(
    id="trading-btc-usdt",
    name="Trading BTC-USDT",
    group="Trading",
    position=0,
    status=ComponentStatus.MAJOR_OUTAGE,
    since_ns=BEGAN_NS,
)
QUIET = Board(
    version=1,
    page_name="Evenkeel",
    page_url="https://status.example",
    updated_ns=BEGAN_NS,
    checked_ns=BEGAN_NS,
    components=(COMPONENT,),
    incidents=(),
    maintenances=(),
)


def update(number: int, status: IncidentStatus, body: str) -> Update:
    return Update(id=f"u{number}", at_ns=BEGAN_NS + number * SECOND_NS, status=status, body=body)


def incident(
    *updates: Update, id_: str = "abc123", impact: Impact = Impact.MAJOR, name: str = "Orders fail"
) -> Incident:
    """Updates oldest first."""
    newest = updates[-1]
    assert isinstance(newest.status, IncidentStatus)
    over = newest.status is IncidentStatus.RESOLVED
    return Incident(
        id=id_,
        name=name,
        status=newest.status,
        impact=impact,
        components=(COMPONENT.id,),
        instruments=("BTC-USDT",),
        started_ns=BEGAN_NS,
        created_ns=BEGAN_NS,
        updated_ns=newest.at_ns,
        resolved_ns=newest.at_ns if over else 0,
        updates=tuple(reversed(updates)),
    )


OPENED = update(1, IncidentStatus.INVESTIGATING, "Orders in BTC-USDT are refused.")
KNOWN = update(2, IncidentStatus.IDENTIFIED, "A process has ended; another takes over.")
RESOLVED = update(9, IncidentStatus.RESOLVED, "Everything works again.")


def board(*incidents: Incident, version: int = 2) -> Board:
    return replace(QUIET, incidents=incidents, version=version)
