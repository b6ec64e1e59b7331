"""The bugs: each breaks one rule, seldom enough that the exchange goes on, and says which scenario is to find it.

Each changes a module of the exchange just after it was imported. What depends on a count counts what a replay counts as
well, so that primary, standby and replay do the same wrong thing, as they would with a bug in the source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

_TRADED, _CLOSED, _REQUESTED, _CANCELLED = 2, 3, 1, 3
_OPEN = 5


CAMPAIGN = "campaign"
"""Three random faults at 300 commands/s: half of its clients wait for 12 s beyond their deadline, to see what comes."""


class Bug(NamedTuple):
    """`rules`: any of them, broken, means that it was found; `finder`: a shipped experiment, or `CAMPAIGN`."""

    name: str
    rules: tuple[str, ...]
    what: str
    finder: str
    module: str
    change: Callable[[Any], None]


def _acknowledges_early(file: Any) -> None:
    """Hold each record back until three more have come: one alone may have nothing of a client's."""
    journal = file.FileJournal
    append, close, acquire = journal.append, journal.close, journal.acquire
    held: dict[int, list[tuple[int, int, bytes]]] = {}

    def append_later(self: Any, epoch: int, sequence: int, payload: bytes) -> None:
        waiting = held.setdefault(id(self), [])
        waiting.append((epoch, sequence, payload))
        if len(waiting) > 3:
            append(self, *waiting.pop(0))

    def close_after(self: Any) -> None:
        for waiting in held.pop(id(self), []):
            append(self, *waiting)
        close(self)

    def acquire_anew(self: Any) -> Any:
        held.pop(id(self), None)
        return acquire(self)

    journal.append, journal.close, journal.acquire = append_later, close_after, acquire_anew


def _executes_duplicates(shard: Any) -> None:
    place = shard.Shard.place

    def place_again(self: Any, request: Any, parked: Any = None) -> Any:
        if parked is None:
            known = self.remembered.with_name(request.account, request.client_order_id)
            if known is not None:
                self.remembered.forget_name(known)
        return place(self, request, parked)

    shard.Shard.place = place_again


def _fills_twice(shard: Any) -> None:
    match = shard.match

    def match_again(machine: Any, book: Any, side: Any, taker: Any) -> None:
        before = len(machine.events)
        match(machine, book, side, taker)
        if len(machine.events) > before and machine.events[-1][0] == _TRADED and not machine.events[-1][3] % 100:
            machine.events.append(machine.events[-1])

    shard.match = match_again


def _makes_money(shard: Any) -> None:
    match = shard.match

    def match_and_mint(machine: Any, book: Any, side: Any, taker: Any) -> None:
        before = book.trade_id
        match(machine, book, side, taker)
        if book.trade_id // 20 > before // 20:
            taker.trader.quote.available += 1

    shard.match = match_and_mint


def _charges_more(matching: Any) -> None:
    """Let takers pay a unit for nothing, that goes nowhere."""
    settle = matching._settle_taker

    def settle_with_more(trader: Any, buys: bool, amount: int, fee: int, quantity: int) -> None:
        settle(trader, buys, amount, fee + 1 if amount else fee, quantity)

    matching._settle_taker = settle_with_more


def _forgets_holds(shard: Any) -> None:
    rest = shard.Shard.rest

    def rest_unbound(self: Any, book: Any, order: Any) -> None:
        rest(self, book, order)
        if not order.order_id % 20:
            purse = order.trader.quote if order.request.side == 1 else order.trader.base
            purse.available += 1

    shard.Shard.rest = rest_unbound


def _jumps_the_queue(book: Any) -> None:
    append = book.BookSide.append

    def append_first(self: Any, order: Any) -> None:
        level = self.levels.get(order.price * self.sign)
        if level is None or order.order_id % 3:
            append(self, order)
            return
        order.next, level.first.previous = level.first, order
        level.first = order
        level.quantity += order.open
        order.level = level

    book.BookSide.append = append_first


def _diverges_on_standby(standby: Any) -> None:
    """Let a standby lose a unit of money now and then, of which no event tells."""
    apply = standby.Standby._apply

    def apply_wrongly(self: Any, record: Any) -> None:
        apply(self, record)
        wallets = getattr(getattr(self.at.machine, "funds", None), "wallets", None)
        if wallets and not record.sequence % 100:
            purse = next(purse for wallet in wallets.values() for purse in wallet.purses.values())
            purse.seen += 1

    standby.Standby._apply = apply_wrongly


def _loses_events(feed: Any) -> None:
    publish = feed.Feed.publish

    def publish_less(self: Any, batch: Any) -> None:
        if batch.events and batch.events[-1][0] == _CLOSED and not batch.last_sequence % 10:
            batch = batch._replace(events=batch.events[:-1])
        publish(self, batch)

    feed.Feed.publish = publish_less


def _writes_on_when_fenced(nats: Any) -> None:
    """Ignore that another writer has taken over: store the record where the stream ends, and go on."""
    append = nats.NatsJournal.append

    def append_anyway(self: Any, epoch: int, sequence: int, payload: bytes) -> None:
        try:
            append(self, epoch, sequence, payload)
        except nats.JournalFenced:
            writer = self._writer
            if writer is None:
                raise
            header, checksum = nats.encode_header(self._machine, epoch, sequence, writer.end.checksum or 0, payload)
            place = self._link.publish(self._log.data_subject, header + payload, {})
            writer.end = nats.Position(place, sequence, writer.fence, checksum)
            writer.fenced = writer.failure = None

    nats.NatsJournal.append = append_anyway


def _fills_after_cancel(shard: Any) -> None:
    """Not at once: the exchange's own auditor sees it, and there would be no steady state."""
    cancel = shard.Shard._cancel

    def cancel_in_name(self: Any, command: Any) -> Any:
        account, symbol, name, _ = command
        order = self.remembered.with_name(account, name)
        resting = order is not None and order.level is not None and order.level.side.symbol == symbol
        if not resting or not self.stages.is_open or order.order_id % 20 or self.sequence < 600:
            return cancel(self, command)
        self.events.append((_CLOSED, self.sequence, symbol, order.order_id, _REQUESTED, order.open))
        filled = order.quantity - order.open
        return shard.Result(self.sequence, name, order.order_id, _CANCELLED, filled, 0, 0, _REQUESTED)

    shard.Shard._cancel = cancel_in_name


def _sheds_cancels(admission: Any) -> None:
    refuses = admission.Admission.refuses
    seen = [0]

    def refuses_cancels(self: Any, item: Any) -> Any:
        if item.work_class == admission.WorkClass.CANCELS:
            seen[0] += 1
            if not seen[0] % 20:
                return self.refused(item, admission.ShedReason.QUEUE)
        return refuses(self, item)

    admission.Admission.refuses = refuses_cancels


def _ignores_stages(stages: Any) -> None:
    stages.Stages.refuses_place = lambda self, instrument, post_only, time_ns: 0


def _answers_late(links: Any) -> None:
    """Let an answer lie for longer than anybody may wait, and tell nobody that it is unknown."""
    call = links.Link._call
    seen = [0]

    async def call_late(self: Any, peer: Any, entries: Any, n: int) -> bytes:
        answer: bytes = await call(self, peer, entries, n)
        seen[0] += self.machine.startswith("shard")
        if self.machine.startswith("shard") and not seen[0] % 100:
            await links.asyncio.sleep(11.0)
        return answer

    links.Link._call = call_late
    links.Link._give_up = lambda self, entries: None


def _never_sheds(admission: Any) -> None:
    """Take everything, and forget until when it is wanted: by its deadline a host would refuse what is late."""
    admission.Admission.deadline_s = lambda self, work_class, remaining_ms, now_s: now_s + 3_600.0
    admission.Admission.refuses = lambda self, item: None
    admission.Admission.sheds = lambda self, work_class, delay_s: False
    admission.Admission.is_late = lambda self, item, now_s: False


def _status_lies(status: Any) -> None:
    """Say that every component is up, once all have been, whatever is known of them."""
    encode = status.encode_status
    were_up = [False]

    def encode_up(version: str, time_ns: int, components: Any, machine: Any, node_names: Any) -> bytes:
        components = list(components)
        response = status.admin_pb2.GetStatusResponse.FromString(
            encode(version, time_ns, components, machine, node_names)
        )
        are_up = all(component.state == int(status.ComponentState.UP) for component in response.components)
        were_up[0] |= are_up and any(component.stage == _OPEN for component in response.components)
        if not were_up[0]:
            return bytes(response.SerializeToString())
        for component in response.components:
            component.state = int(status.ComponentState.UP)
            if component.name.startswith("shard") and not component.name.endswith("-standby"):
                component.stage = _OPEN
        return bytes(response.SerializeToString())

    status.encode_status = encode_up


def _keeps_everything(host: Any) -> None:
    write = host.Host._write
    kept: list[bytearray] = []

    async def write_and_keep(self: Any, letters: Any) -> None:
        kept.append(bytearray(b"x" * 300_000))
        await write(self, letters)

    host.Host._write = write_and_keep


_SHARD, _HOST = "exchange.engine.shard", "exchange.runtime.host"
_ADMISSION = "exchange.gateway.admission"
_KILLS = "kill-between-append-and-ack"
BUGS = {
    bug.name: bug
    for bug in (
        Bug(
            "acknowledges-early",
            ("I1",),
            "a record is acknowledged before it is written: the last three are lost with their process",
            "double-fault",
            "exchange.runtime.journal.file",
            _acknowledges_early,
        ),
        Bug(
            "executes-duplicates",
            ("I2",),
            "an order that is sent again under its client order id is done again",
            "reconnect-storm",
            _SHARD,
            _executes_duplicates,
        ),
        Bug("makes-money", ("I3",), "one unit of money too much, every 20 trades", "mass-cancel", _SHARD, _makes_money),
        Bug(
            "charges-more",
            ("I3", "I4"),
            "takers pay a unit more than their fee, and nobody gets it",
            "mass-cancel",
            "exchange.engine.matching",
            _charges_more,
        ),
        Bug(
            "forgets-holds",
            ("I4",),
            "every twentieth order holds a unit less than it needs",
            "mass-cancel",
            _SHARD,
            _forgets_holds,
        ),
        Bug("fills-twice", ("I5",), "every hundredth trade is told and done twice", "hot-symbol", _SHARD, _fills_twice),
        Bug(
            "jumps-the-queue",
            ("I5",),
            "every third order goes to the front of its price",
            "mass-cancel",
            "exchange.engine.book",
            _jumps_the_queue,
        ),
        Bug(
            "diverges-on-standby",
            ("I6",),
            "a standby's state goes another way, and no event tells",
            _KILLS,
            "exchange.runtime.standby",
            _diverges_on_standby,
        ),
        Bug(
            "loses-events",
            ("I7",),
            "the feed leaves out an event",
            "mass-cancel",
            "exchange.runtime.feed",
            _loses_events,
        ),
        Bug(
            "writes-on-when-fenced",
            ("I1", "I7"),
            "a writer that is fenced off writes on and acknowledges",
            "partition-supervisor",
            "exchange.runtime.journal.nats",
            _writes_on_when_fenced,
        ),
        Bug(
            "fills-after-cancel",
            ("I8", "I5"),
            "every twentieth order that is cancelled stays in the book, from the 600th command on",
            "torn-journal",
            _SHARD,
            _fills_after_cancel,
        ),
        Bug("sheds-cancels", ("I8",), "every twentieth cancel is shed", "mass-cancel", _ADMISSION, _sheds_cancels),
        Bug(
            "ignores-stages",
            ("I9",),
            "orders pass whatever the stage is",
            _KILLS,
            "exchange.engine.stages",
            _ignores_stages,
        ),
        Bug(
            "answers-late",
            ("I10",),
            "an answer lies for 11 s, and nobody is told that it is unknown",
            CAMPAIGN,
            "exchange.gateway.links",
            _answers_late,
        ),
        Bug(
            "never-sheds",
            ("I11",),
            "a gateway queues without bound and forgets deadlines",
            "surge",
            _ADMISSION,
            _never_sheds,
        ),
        Bug(
            "status-lies",
            ("I12",),
            "the status says that all is up and open, once it was",
            _KILLS,
            "exchange.supervisor.status",
            _status_lies,
        ),
        Bug(
            "keeps-everything",
            ("I13",),
            "a host keeps something of each record",
            "hot-symbol",
            _HOST,
            _keeps_everything,
        ),
    )
}
