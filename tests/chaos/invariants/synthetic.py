"""A history without an exchange: a shard's journal and the logs of clients that saw all of it, true to each other.

Tests spoil one or the other and see whether the checker finds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chaos.campaign.flow import Flow
from chaos.campaign.plan import LoadPlan, Trader
from chaos.invariants.book import BUY, SELL, Books
from chaos.invariants.checker import check_history
from chaos.invariants.commands import command_of
from chaos.invariants.findings import Findings
from chaos.invariants.history import FileHistory
from chaos.invariants.replay import KINDS
from chaos.invariants.shard import ShardChecker, checksum_of
from chaos.invariants.told import ClientLogs
from chaos.load.client_log import Line, fields_of_command
from exchange.engine.channel import AnswerFunds, AnswerStatus, Ask
from exchange.engine.commands import AddInstrument, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.shard import Shard
from exchange.engine.words import Stage
from exchange.runtime.codec import decode_trade
from exchange.runtime.journal import FileJournal
from exchange.runtime.machine import MachineType, state_hash
from exchange.runtime.messages import LinkBatch, RecordPayload, Segment, SegmentKind, pack_record
from exchange.runtime.rows import rows_segment
from exchange.v1 import trading_pb2

SHARD, MARKET = "shard-0", "AAA-USDT"
INSTRUMENT = Instrument(MARKET, "AAA", "USDT", 2, 4, 6)
ACCOUNTS = (2, 3)
START_NS = 10**18
MS = 1_000_000
RICH = 10**15
PENDING = 5


class SyntheticRun:
    """Makes the history; then `records` (epoch and payload of each) and `logs` (lines by file) may be changed."""

    def __init__(self, directory: Path, *, messages: int = 60, seed: int = 1) -> None:
        self.directory = directory
        self.records: list[tuple[int, RecordPayload]] = []
        self.logs: dict[str, list[Line]] = {}
        self.status: list[Line] = []
        traders = tuple(Trader(f"t{n}", account, "", by_sdk=False) for n, account in enumerate(ACCOUNTS))
        self.plan = LoadPlan(seed, ("gateway:1",), {MARKET: SHARD}, traders)
        self.shard = Shard()
        self._rows = ShardChecker(SHARD, ClientLogs(), Findings())
        self._books = Books(Findings(), SHARD)
        self._book_at = 0
        self._n = 0
        self._time_ns = START_NS
        self._messages = 0
        self._resolved: dict[int, tuple[Any, ...]] = {}
        self._prices_seen: dict[int, set[int]] = {BUY: set(), SELL: set()}
        for trader in traders:
            self.logs[f"{trader.name}.executions"] = [{"e": "start", "seqs": {SHARD: 0}}]
            self.logs[trader.name] = []
        self.apply(rows_segment([AddInstrument(INSTRUMENT), SetStage(int(Stage.OPEN))]))
        self.logs[f"{MARKET}.book-0"] = [self._update(self.shard.sequence, snap=True)]
        flows = [Flow(seed, trader.name, [MARKET]) for trader in traders]
        for n in range(messages):
            who = n % len(flows)
            self.send(who, flows[who].message(4))

    def send(self, who: int, commands: Sequence[trading_pb2.Command], *, epoch: int = 1) -> None:
        """Have a trader send a message and see its outcome."""
        self._messages += 1
        account, log = ACCOUNTS[who], self.logs[f"t{who}"]
        stamp = {"t": self._messages, "due": 0, "until": 0, "m": self._messages}
        log += [
            {"e": "send", **stamp, "i": i, **fields_of_command(command), "gw": ""} for i, command in enumerate(commands)
        ]
        data = trading_pb2.TradeRequest(request_id=self._messages, commands=commands).SerializeToString()
        results = self.apply(Segment(int(SegmentKind.TRADE), account, 0, 1_000, data), epoch=epoch)
        for i, (command, result) in enumerate(zip(commands, results, strict=True)):
            content = fields_of_command(command)
            sequence, _, order_id, status, filled, left, reject, close, duplicate, _ = result
            told = {"oid": order_id, "st": status, "filled": filled, "left": left, "rej": reject, "cl": close}
            named = {"m": self._messages, "i": i, "k": content["k"], "id": content["id"], "sym": content["sym"]}
            outcome = 2 if reject else 1
            log.append({"e": "out", "t": 0, **named, "o": outcome, **told, "seq": sequence, "dup": duplicate, "gw": ""})

    def later(self, minutes: int) -> None:
        self._time_ns += minutes * 60_000 * MS

    def apply(self, segment: Segment, *, epoch: int = 1) -> list[tuple[Any, ...]]:
        """Journal and apply a segment, and then what the ledger would say to it; return what became of its commands."""
        results = self._record(segment, epoch)
        asks = [message for message in self.shard.funds.outbox.values() if isinstance(message, Ask)]
        if asks:
            granted = [AnswerFunds(ask.n, int(AnswerStatus.GRANTED), RICH) for ask in asks]
            self._record(rows_segment(granted), epoch)
        return [self._resolved.pop(result[0], result) if result[3] == PENDING else result for result in results]

    def _record(self, segment: Segment, epoch: int) -> list[tuple[Any, ...]]:
        self._n += 1
        self._time_ns += MS
        batch = LinkBatch("gateway-0", 1, self._n, [segment])
        self.records.append((epoch, RecordPayload(self._time_ns, [batch])))
        is_trade = segment.kind == SegmentKind.TRADE
        commands = decode_trade(segment) if is_trade else KINDS["shard"].decode(segment)
        ours: Sequence[Any] = commands
        if is_trade:
            request = trading_pb2.TradeRequest.FromString(segment.data)
            ours = [command_of(message, segment.account) for message in request.commands]
        before = self.shard.sequence
        results, events = self.shard.apply(self._time_ns, commands)
        for sequence, (command, result) in enumerate(zip(ours, results, strict=True), before + 1):
            mine = [event for event in events if event[1] == sequence]
            self._books.step(sequence, command, result, mine, "")
            for event in mine:
                self._tell(event)
            if any(event[0] in (1, 2, 3, 4) for event in mine):
                self.logs[f"{MARKET}.book-0"].append(self._update(sequence))
        return [tuple(result) for result in results]

    def _tell(self, event: tuple[Any, ...]) -> None:
        if event[0] == 8:
            _, _, _, _, parked, name, *rest = event
            self._resolved[parked] = (parked, name, *rest, False, 0)
        for account, row in self._rows.rows_of(event):
            line = {"e": "exec", "t": 0, "shard": SHARD, "seq": event[1], "x": list(row), "gw": ""}
            self.logs[f"t{ACCOUNTS.index(account)}.executions"].append(line)

    def _update(self, sequence: int = 0, *, snap: bool = False) -> Line:
        market = self._books.markets.get(MARKET)
        previous, self._book_at = self._book_at, sequence
        sides = {} if market is None else {side: market.sides[side].levels for side in (BUY, SELL)}
        rows = {
            side: [[price, *sides.get(side, {}).get(price, (0, 0))] for price in self._prices(side)]
            for side in (BUY, SELL)
        }
        checksum = 0 if market is None else checksum_of(market)
        book = {"sym": MARKET, "snap": snap, "seq": sequence, "prev": previous, "crc": checksum}
        return {"e": "book", "t": 0, **book, "bids": rows[BUY], "asks": rows[SELL], "gw": ""}

    def _prices(self, side: int) -> list[int]:
        """Return every price that there ever was: a level that did not change may be told again."""
        seen = self._prices_seen
        if MARKET in self._books.markets:
            seen[side] |= self._books.markets[MARKET].sides[side].levels.keys()
        return sorted(seen[side])

    def hash_now(self) -> str:
        return state_hash(KINDS["shard"], self.shard).hex()

    # ---------------------------------------------------------------- the checker

    def write(self) -> None:
        """Write journal and logs as they are now."""
        directory = self.directory / "archive" / SHARD
        (directory / "snapshots").mkdir(parents=True)
        journal = FileJournal.open(directory / "journal", SHARD)
        epoch = 0
        for number, (wanted, payload) in enumerate(self.records, 1):
            while epoch < wanted:
                journal.close()
                journal = FileJournal.open(directory / "journal", SHARD)
                epoch = journal.acquire()
            journal.append(epoch, number, pack_record(payload))
        journal.close()
        logs = self.directory / "logs"
        logs.mkdir()
        for name, lines in self.logs.items():
            text = "".join(json.dumps({"t": 0, **line}) + "\n" for line in [*lines, {"e": "end"}])
            (logs / f"{name}.log").write_text(text)
        (self.directory / "status.log").write_text("".join(json.dumps(line) + "\n" for line in self.status))

    @property
    def segments(self) -> list[Path]:
        return sorted((self.directory / "archive" / SHARD / "journal").glob("*.journal"))

    def check(self, kind: MachineType | None = None) -> Findings:
        history = FileHistory(self.directory / "archive", {})
        kinds = {**KINDS, "shard": kind or KINDS["shard"]}
        status = self.directory / "status.log"
        return check_history(history, {SHARD: "shard"}, self.plan.logged, self.directory / "logs", status, kinds)


Spoil = Callable[[list[tuple[Any, ...]]], list[tuple[Any, ...]]]


class SpoiltKind:
    """A kind of machine that does something wrong: what `spoil` makes of the events of a record."""

    def __init__(self, spoil: Spoil) -> None:
        self._kind = KINDS["shard"]
        self._spoil = spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kind, name)

    def new(self) -> Any:
        return _SpoiltMachine(self._spoil)

    def pack_state(self, machine: _SpoiltMachine) -> bytes:
        return self._kind.pack_state(machine.shard)


class _SpoiltMachine:
    """A shard, held rather than inherited: a compiled class takes no interpreted subclass."""

    def __init__(self, spoil: Spoil) -> None:
        self.shard = Shard()
        self._spoil = spoil

    @property
    def sequence(self) -> int:
        return self.shard.sequence

    def apply(self, time_ns: int, batch: Sequence[Any]) -> Any:
        applied = self.shard.apply(time_ns, batch)
        return applied._replace(events=self._spoil(applied.events))
