"""I12 for the public: whether the page, the announcements and the drafts of post-mortems told what was so, and in time.

What clients found decides for the page; what the supervisor wrote down, which the draft must agree with, for times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from chaos.run.levels import Seen
from chaos.run.public import ANNOUNCEMENTS_FILE, BOARD_FILE, OPERATIONAL, SITE, Announced, Published, ToldIncident
from chaos.run.record import Check, read_lines
from chaos.run.truth import WITHIN_S, Claim, lies_of, orders_by

EARLY_S = 1.0
"""Clocks and looks: an incident may be said to have begun so long before the fault was written down."""
_TRADING = "trading-"
_CLOSED_MODES = ("cancel_only", "recovering", "halted")
_LOGGED = ("stage", "lost", "up")
"""Events of a shard that its draft must have."""


class Logged(NamedTuple):
    """An event as the supervisor wrote it down."""

    time_ns: int
    kind: str
    component: str


class Public(NamedTuple):
    """All that was published in a run."""

    boards: Sequence[Published]
    announced: Sequence[Announced]
    drafts: Mapping[str, str]
    """By incident."""
    site: Path


def read_public(directory: Path) -> Public:
    """Return what was published, as it stands in the directory of it."""
    drafts = {path.stem.removeprefix("post-mortem-"): path.read_text("utf-8") for path in directory.glob("*.md")}
    return Public(
        list(read_lines(directory / BOARD_FILE, Published)),
        list(read_lines(directory / ANNOUNCEMENTS_FILE, Announced)),
        drafts,
        directory / SITE,
    )


def read_logged(path: Path) -> list[Logged]:
    """Return the supervisors' events."""
    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    return [Logged(line["time_ns"], line["kind"], line["component"]) for line in lines]


def check_public(seen: Seen, public: Public, logged: Sequence[Logged], begun_ns: int) -> Check:
    """Return the check of I12 on what was published; `begun_ns`: when the load began, monotonic."""
    lies: list[str] = []
    looked_at = 0
    placed = orders_by(seen, lambda answer: answer.market)
    end_s = seen.samples[-1].t + 1.0 if seen.samples else 0.0
    for market in sorted(seen.markets):
        for claim in claims_of(public.boards, market, begun_ns, end_s):
            if claim.end_s - claim.begin_s > WITHIN_S:
                looked_at += 1
                lies += lies_of(f"{market} on the page", claim, placed[market])
    incidents = public.boards[-1].incidents if public.boards else ()
    for told in incidents:
        looked_at += 1
        lies += _of_incident(told, public, seen, logged, begun_ns)
    deliveries = [announced.delivery for announced in public.announced]
    lies += [f"{name} was announced twice" for name in sorted({d for d in deliveries if deliveries.count(d) > 1})]
    return Check(
        name="I12",
        held=looked_at > 0 and not lies,
        wanted=f"what is published is true within {WITHIN_S:g} s, and has the times of the event log",
        found=f"{len(lies)} of {looked_at} things published were not so" if looked_at else "nothing was published",
        looked_at=looked_at,
        evidence=tuple(lies[:5]),
    )


def figures_of(seen: Seen, public: Public, begun_ns: int) -> dict[str, float]:
    """Return how long after the first fault the page told that something fails, and a subscriber had heard it, in s."""
    proofs = [event.t for event in seen.events if event.kind == "proof" and event.what == "took effect"]
    if not proofs:
        return {}
    figures: dict[str, float] = {}
    told = {
        "published_s": [board.monotonic_ns for board in public.boards if not board.is_well],
        "announced_s": [announced.monotonic_ns for announced in public.announced],
    }
    for name, times_ns in told.items():
        after_s = [t for t_ns in times_ns if (t := (t_ns - begun_ns) / 1e9 - proofs[0]) >= 0]
        if after_s:
            figures[name] = round(after_s[0], 2)
    return figures


def claims_of(boards: Sequence[Published], market: str, begun_ns: int, end_s: float) -> Iterator[Claim]:
    """Yield what the page said of a market, in order of time, from the begin of the load to its end."""
    of_market = f"{_TRADING}{market.lower()}"
    claim: Claim | None = None
    for board in boards:
        status, mode, _ = board.components.get(of_market, (OPERATIONAL, "", ""))
        is_open = status != "major_outage" and mode not in _CLOSED_MODES
        said = f"{status} {mode}".strip()
        at_s = max((board.monotonic_ns - begun_ns) / 1e9, 0.0)
        if claim is not None and (claim.is_open, claim.said) != (is_open, said):
            yield claim._replace(end_s=at_s)
            claim = None
        claim = claim or Claim(at_s, at_s, is_open, said)
        claim = claim._replace(end_s=at_s)
    if claim is not None:
        yield claim._replace(end_s=max(claim.end_s, end_s))


def _of_incident(
    told: ToldIncident, public: Public, seen: Seen, logged: Sequence[Logged], begun_ns: int
) -> Iterator[str]:
    """Yield what is wrong with an incident: when it began, what subscribers heard of it, its draft, the site."""
    what = f"the incident {told.name!r}"
    first = public.boards[0]
    began_s = (told.start_time_ns - first.time_ns + first.monotonic_ns - begun_ns) / 1e9
    done = [event.t for event in seen.events if event.kind == "fault"]
    if not done or began_s < min(done) - EARLY_S:
        yield f"{what} is said to have begun at {began_s:.1f} s, and nothing had been done by then"
    heard = [announced for announced in public.announced if announced.subject == f"incident-{told.id}"]
    if not heard:
        yield f"{what} was not announced"
    elif heard[-1].status != told.status:
        yield f"{what} is {told.status}, and {heard[-1].status} was announced last"
    if not (public.site / f"incidents/{told.id}.html").is_file():
        yield f"{what} has no page"
    feed = public.site / "feed.atom"
    if not feed.is_file() or told.id not in feed.read_text("utf-8"):
        yield f"{what} is not in the feed"
    draft = public.drafts.get(told.id, "")
    if not draft:
        yield f"{what} has no draft of a post-mortem"
        return
    shards = set(seen.markets.values())
    end_ns = told.resolve_time_ns or public.boards[-1].time_ns
    for event in logged:
        is_within = told.start_time_ns <= event.time_ns <= end_ns
        if is_within and event.kind in _LOGGED and event.component in shards and moment(event.time_ns) not in draft:
            yield f"the draft of {what} does not have {event.kind} of {event.component} at {moment(event.time_ns)}"


def moment(time_ns: int) -> str:
    """Return a time as the drafts write it: UTC, in ms."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
