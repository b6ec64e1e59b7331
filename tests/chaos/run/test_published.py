"""What the public was told is held against what clients found and what the supervisor wrote down (I12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from chaos.load.client_log import ACKNOWLEDGED, REJECTED
from chaos.run.answers import Answer
from chaos.run.levels import Seen
from chaos.run.public import Announced, Published, ToldIncident
from chaos.run.published import Logged, Public, check_public, claims_of, figures_of, moment
from chaos.run.record import Check, Event
from tests.chaos.run.fakes import sample_of

BEGUN_NS = 500_000_000_000
EPOCH_NS = 1_700_000_000_000_000_000
SHARD_UNAVAILABLE = 603
KILLED_S, OPEN_S, RESOLVED_S = 10.0, 18.0, 28.0


def ns(at_s: float) -> int:
    return EPOCH_NS + int(at_s * 1e9)


def board(at_s: float, status: str, mode: str, *incidents: ToldIncident) -> Published:
    return Published(
        monotonic_ns=BEGUN_NS + int(at_s * 1e9),
        time_ns=ns(at_s),
        components={"trading-a-b": (status, mode, "A-B"), "funds": ("operational", "", "")},
        incidents=incidents,
    )


def incident(status: str = "resolved", begun_s: float = KILLED_S + 0.3) -> ToldIncident:
    updates = ((ns(RESOLVED_S), "resolved", "Over."), (ns(KILLED_S + 4.5), "investigating", "A-B fails."))
    return ToldIncident(
        id="i1",
        name="A-B unavailable",
        status=status,
        start_time_ns=ns(begun_s),
        resolve_time_ns=ns(RESOLVED_S),
        updates=updates,
    )


def announced(at_s: float, status: str, delivery: str, subject: str = "incident-i1") -> Announced:
    at_ns = BEGUN_NS + int(at_s * 1e9)
    return Announced(
        monotonic_ns=at_ns, delivery=delivery, subject=subject, title="A-B unavailable", status=status, latest="…"
    )


LOGGED = [
    Logged(ns(KILLED_S + 0.5), "lost", "shard-0"),
    Logged(ns(KILLED_S + 3.0), "up", "shard-0"),
    Logged(ns(OPEN_S), "stage", "shard-0"),
    Logged(ns(KILLED_S + 2.0), "up", "auditor"),
]


@pytest.fixture
def public(tmp_path: Path) -> Public:
    """An outage from 10 to 18 s, told as it was."""
    (tmp_path / "incidents").mkdir()
    (tmp_path / "incidents" / "i1.html").write_text("<p>A-B</p>")
    (tmp_path / "feed.atom").write_text("<feed><id>i1</id></feed>")
    draft = "\n".join(moment(event.time_ns) for event in LOGGED[:3])
    boards = [
        board(-3.0, "operational", "online"),
        board(KILLED_S + 1.0, "major_outage", "unknown"),
        board(OPEN_S + 1.0, "operational", "online"),
        board(RESOLVED_S, "operational", "online", incident()),
    ]
    heard = [announced(KILLED_S + 4.6, "investigating", "d1"), announced(RESOLVED_S + 0.1, "resolved", "d2")]
    return Public(boards, heard, {"i1": draft}, tmp_path)


def answers(outcome: int, begin_s: float, end_s: float, reason: int = 0) -> list[Answer]:
    """Four orders a second, each answered after 0.1 s."""
    times = [n / 4 for n in range(int(4 * begin_s), int(4 * end_s))]
    return [Answer("place", "A-B", t, t + 0.1, outcome, reason, False, f"t.log:{t}") for t in times]


def seen(open_s: float = OPEN_S) -> Seen:
    faults = [
        Event(t=KILLED_S, kind="fault", name="kill-process", what="injected", target="shard-0"),
        Event(t=KILLED_S + 0.1, kind="proof", name="kill-process", what="took effect", target="shard-0"),
    ]
    placed = [
        *answers(ACKNOWLEDGED, 0, KILLED_S),
        *answers(REJECTED, KILLED_S, open_s, SHARD_UNAVAILABLE),
        *answers(ACKNOWLEDGED, open_s, 30),
    ]
    return Seen([sample_of(second) for second in range(30)], faults, placed, {"A-B": "shard-0"})


def check(public: Public, found: Seen | None = None) -> Check:
    return check_public(found or seen(), public, LOGGED, BEGUN_NS)


def test_what_was_told_as_it_was_holds(public: Public) -> None:
    found = check(public)
    assert found.held, found
    # The first and the last seconds of the page, its outage, and the incident.
    assert found.looked_at == 4
    assert figures_of(seen(), public, BEGUN_NS) == {"published_s": 0.9, "announced_s": 4.5}


def test_a_page_says_what_it_says_until_it_says_something_else(public: Public) -> None:
    claims = list(claims_of(public.boards, "A-B", BEGUN_NS, 30.0))
    assert [(claim.begin_s, claim.end_s, claim.is_open) for claim in claims] == [
        (0.0, KILLED_S + 1, True),
        (KILLED_S + 1, OPEN_S + 1, False),
        (OPEN_S + 1, 30.0, True),
    ]


Spoil = Callable[[Public], Public]


def without_page(public: Public) -> Public:
    (public.site / "incidents" / "i1.html").unlink()
    return public


def with_incident(**fields: object) -> Spoil:
    def spoil(public: Public) -> Public:
        last = public.boards[-1]
        told = msgspec.structs.replace(last.incidents[0], **fields)
        return public._replace(boards=[*public.boards[:-1], msgspec.structs.replace(last, incidents=(told,))])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "lie"),
    [
        (lambda public: public._replace(boards=[public.boards[0], public.boards[-1]]), "A-B on the page was said"),
        (lambda public: public._replace(announced=()), "was not announced"),
        (lambda public: public._replace(announced=public.announced[:1]), "investigating was announced last"),
        (lambda public: public._replace(announced=[*public.announced, public.announced[1]]), "d2 was announced twice"),
        (lambda public: public._replace(drafts={}), "has no draft"),
        (
            lambda public: public._replace(drafts={"i1": public.drafts["i1"].replace(moment(ns(OPEN_S)), "later")}),
            "does not have stage of shard-0",
        ),
        (without_page, "has no page"),
        (with_incident(start_time_ns=ns(4.0)), "and nothing had been done by then"),
    ],
)
def test_what_was_told_otherwise_is_found(public: Public, spoil: Spoil, lie: str) -> None:
    found = check(spoil(public))
    assert not found.held
    assert lie in found.evidence[0]


def test_a_page_that_stays_red_while_orders_are_taken_is_found(public: Public) -> None:
    found = check(public._replace(boards=[*public.boards[:2], public.boards[3]]))
    assert not found.held
    assert "and took" in found.evidence[0]


def test_nothing_published_is_not_held() -> None:
    assert not check(Public([], [], {}, Path())).held
