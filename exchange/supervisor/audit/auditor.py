"""Follows the feeds of all machines at its own pace, and audits at intervals and on demand.

One call to each machine is in flight at most, and reads of a feed come at intervals, so that being audited costs a
machine next to nothing. What falls behind, or meets a gap, starts over from the machine's own books and says so.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeVar

import structlog

from exchange.runtime.codec import unpack_dump
from exchange.runtime.feed import FeedBatch, unpack_batch
from exchange.runtime.messages import pack, unpack
from exchange.runtime.peers import Peer, PeerUnavailable
from exchange.supervisor.audit.cut import CutCheck
from exchange.supervisor.audit.ledger import LedgerAccount
from exchange.supervisor.audit.shard import FeedMissed, ShardAccount
from exchange.supervisor.audit.words import AuditReport, Break, LedgerCut, ShardCut

LEDGER = "ledger"
FOLLOW_PAUSE_S = 0.5
"""Between reads of a feed: what comes meanwhile comes with one call. A feed holds more than that."""
START_OVER_S = 10.0
"""After a gap, before following begins again by itself: who cannot keep up must not ask for dumps all the time."""
CUT_TIMEOUT_S = 20.0
TRIES_MAX = 3
BREAKS_KEPT = 1_000
BREAKS_TOLD_MAX = 20
NOTES_KEPT = 100
READ_BYTES = 1 << 20
"""What a feed gives at once if it has that much."""
_MONEY = pack(("money",))

_log = structlog.get_logger()


class Account(Protocol):
    """What is kept of one machine."""

    sequence: int

    def apply(self, batch: FeedBatch) -> None: ...

    def lose(self) -> None: ...

    def compare(self, claim: Any) -> Any: ...


AccountT = TypeVar("AccountT", bound=Account)


class Follower(Generic[AccountT]):
    """Keeps one machine's account. `note` gets what a person should know of it."""

    def __init__(
        self, machine: str, account: AccountT, note: Callable[[str], None], monotonic_s: Callable[[], float]
    ) -> None:
        self.machine = machine
        self.account = account
        self.peer: Peer | None = None
        self._note = note
        self._monotonic_s = monotonic_s
        self._one_call = asyncio.Lock()
        self._start_over_s = 0.0

    async def follow(self) -> None:
        """Read what the feed has, unless the machine is away or it is too early to start over."""
        async with self._one_call:
            try:
                if self.peer is not None and self._monotonic_s() >= self._start_over_s:
                    await self._start()
                    while await self._read():
                        pass
            except PeerUnavailable:
                # It is asked again after the pause.
                pass
            except FeedMissed as error:
                self._lose(error)

    async def ensure_started(self) -> None:
        """Begin an account if there is none. Raises as `cut`."""
        async with self._one_call:
            for _ in range(TRIES_MAX):
                try:
                    await self._start()
                except FeedMissed as error:
                    self._lose(error)
                else:
                    return
        raise PeerUnavailable(f"{self.machine}: its feed could not be followed")

    async def cut(self) -> Any:
        """Ask the machine for its own books, follow the feed up to their sequence, and compare.

        Raises:
            PeerUnavailable: the machine is away, or its feed cannot be followed.
        """
        async with self._one_call:
            for _ in range(TRIES_MAX):
                try:
                    await self._start()
                    return await self._compare()
                except FeedMissed as error:
                    self._lose(error)
        raise PeerUnavailable(f"{self.machine}: its feed could not be followed")

    async def _start(self) -> None:
        """Begin an account with the machine's own books; orders first, as they come from another question."""
        account = self.account
        if isinstance(account, LedgerAccount) and not account.is_started:
            account.start(unpack(await self._peer().query(_MONEY)))
        elif isinstance(account, ShardAccount):
            if not account.is_started:
                account.start(unpack_dump(await self._peer().dump()))
            if not account.is_based:
                await self._compare()

    async def _compare(self) -> Any:
        claim = unpack(await self._peer().query(_MONEY))
        if claim[0] < self.account.sequence:
            raise FeedMissed(f"{self.machine}: expected to be at {self.account.sequence} or after, was {claim[0]}")
        while self.account.sequence < claim[0]:
            await self._read(claim[0])
        return self.account.compare(claim)

    async def _read(self, up_to: int | None = None) -> bool:
        """Apply what the feed has next, no further than a sequence; return whether it has more."""
        batches = await self._peer().feed(self.account.sequence, 0.0)
        if batches is None:
            raise FeedMissed(f"{self.machine}: the feed does not go on after {self.account.sequence}")
        for data in batches:
            self.account.apply(unpack_batch(data))
            # Pings are answered meanwhile.
            await asyncio.sleep(0)
            if up_to is not None and self.account.sequence >= up_to:
                break
        return sum(map(len, batches)) >= READ_BYTES

    def _peer(self) -> Peer:
        if self.peer is None:
            raise PeerUnavailable(f"{self.machine} is away")
        return self.peer

    def _lose(self, error: FeedMissed) -> None:
        self._start_over_s = self._monotonic_s() + START_OVER_S
        self._note(f"{error}: started over, what was missed is checked by its sums alone")
        self.account.lose()


class Auditor:
    """Audits the ledger and these shards every `interval_s`; `set_peers` tells it where they are."""

    def __init__(
        self,
        shards: list[str],
        interval_s: float,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self.breaks: dict[str, Break] = {}
        """All that were found, the oldest first."""
        self.last: AuditReport | None = None
        self._interval_s = interval_s
        self._monotonic_s = monotonic_s
        self._clock_ns = clock_ns
        self._sleep = sleep
        self._found: dict[str, Break] = {}
        """Since the last report, by key."""
        self._notes: deque[str] = deque(maxlen=NOTES_KEPT)
        self._check = CutCheck(self._on_break)
        self._ledger = Follower(LEDGER, LedgerAccount(self._on_break), self._notes.append, monotonic_s)
        self._shards = {
            shard: Follower(shard, ShardAccount(shard, self._on_break), self._notes.append, monotonic_s)
            for shard in shards
        }
        self._followers: tuple[Follower[Any], ...] = (self._ledger, *self._shards.values())
        self._one_audit = asyncio.Lock()

    def set_peers(self, peers: Mapping[str, Peer]) -> None:
        """Take the current hosts of the machines; those that are not named are away."""
        for follower in self._followers:
            follower.peer = peers.get(follower.machine)

    @property
    def detail(self) -> str:
        """What is wrong, in one line; "" if nothing is."""
        if not self.breaks:
            return ""
        newest = next(reversed(self.breaks.values()))
        summary = newest.describe(self._ledger.account.scales.get(newest.asset, 0))
        return f"{len(self.breaks)} breaks, the last one: {summary}"

    def newest_breaks(self) -> list[dict[str, Any]]:
        """Return breaks as fields for a log: so many that a ping can carry them, and one of each shard at least."""
        scales = self._ledger.account.scales
        last_of = {shard: key for key, found in self.breaks.items() for shard in found.shards}
        told = {*last_of.values(), *list(self.breaks)[-BREAKS_TOLD_MAX:]}
        return [found.as_fields(scales.get(found.asset, 0)) for key, found in self.breaks.items() if key in told]

    # ---------------------------------------------------------------- at its own pace

    async def run(self) -> None:
        """Follow and audit until cancelled."""
        await asyncio.gather(self._audit_all(), *map(self._follow, self._followers))

    async def _follow(self, follower: Follower[Any]) -> None:
        while True:
            await follower.follow()
            await self._sleep(FOLLOW_PAUSE_S)

    async def _audit_all(self) -> None:
        while True:
            await self._sleep(self._interval_s)
            if self._ledger.peer is not None:
                await self.audit()

    async def follow(self) -> None:
        """Read what all feeds have now."""
        for follower in self._followers:
            await follower.follow()

    # ---------------------------------------------------------------- an audit

    async def audit(self) -> AuditReport:
        """Audit now, whatever else is going on; one at a time."""
        async with self._one_audit:
            report = await self._audit()
            self.last = report
            _log.info(
                "audit.done",
                balanced=report.is_balanced,
                complete=report.is_complete,
                breaks=len(report.breaks),
                orders=report.orders,
                trades=report.trades,
            )
            return report

    async def _audit(self) -> AuditReport:
        ledger: LedgerCut | None = None
        shards: dict[str, ShardCut] = {}
        for _ in range(TRIES_MAX):
            await _unless_away(self._ledger.ensure_started())
            generation = self._ledger.account.generation
            cuts = await asyncio.gather(*(_unless_away(follower.cut()) for follower in self._shards.values()))
            shards = {cut.shard: cut for cut in cuts if cut is not None}
            # After the shards: so it knows of everything that they have from it.
            ledger = await _unless_away(self._ledger.cut())
            if ledger is None or ledger.generation == generation:
                break
            # It began anew when the shards had been taken, and does not know what moved before.
            ledger = None
        report = AuditReport(self._clock_ns(), notes=list(self._notes))
        report.unavailable = [machine for machine in self._shards if machine not in shards]
        if ledger is None:
            report.unavailable.insert(0, LEDGER)
        self._check.check(report, ledger, shards, self._found)
        report.breaks = list(self._found.values())
        self._found = {}
        self._notes.clear()
        return report

    def _on_break(self, found: Break) -> None:
        for kept in (self._found, self.breaks):
            kept.setdefault(found.key, found)
            if len(kept) > BREAKS_KEPT:
                del kept[next(iter(kept))]


async def _unless_away(asked: Coroutine[Any, Any, Any]) -> Any:
    """Return what a machine answers; None if it is away, or takes too long."""
    try:
        async with asyncio.timeout(CUT_TIMEOUT_S):
            return await asked
    except (PeerUnavailable, TimeoutError):
        return None
