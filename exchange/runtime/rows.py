"""Commands and results as packed rows: the encoding of whatever is not on the hot path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from exchange.engine.channel import AnswerFunds, RecallFunds
from exchange.engine.commands import (
    AddInstrument,
    AmendOrder,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelSessions,
    PlaceOrder,
    SetStage,
    Tick,
)
from exchange.engine.control import Control, HoldStage, PlaceInstrument, TakeIncarnation
from exchange.engine.instrument import Instrument
from exchange.engine.ledger import Ledger
from exchange.engine.ledger_words import (
    CreateAccount,
    CreateApiKey,
    CreateAsset,
    Deposit,
    LedgerEntry,
    LedgerResult,
    RevokeApiKey,
    Transfer,
    Withdraw,
)
from exchange.runtime.messages import Segment, SegmentKind, pack, unpack

# The place in the tuple is the number on disk: add at the end, remove nothing.
SHARD_COMMANDS = (
    PlaceOrder,
    AmendOrder,
    CancelOrder,
    CancelAll,
    CancelSessions,
    CancelAllAfter,
    Tick,
    SetStage,
    AddInstrument,
    AnswerFunds,
    RecallFunds,
)
LEDGER_COMMANDS = (CreateAccount, CreateApiKey, RevokeApiKey, CreateAsset, Deposit, Withdraw, Transfer)
CONTROL_COMMANDS = (TakeIncarnation, PlaceInstrument, HoldStage)

_NUMBERS = {
    command: number
    for commands in (SHARD_COMMANDS, LEDGER_COMMANDS, CONTROL_COMMANDS)
    for number, command in enumerate(commands)
}


def pack_commands(commands: Sequence[Any]) -> bytes:
    """Return commands as packed rows."""
    return pack([(_NUMBERS[type(command)], *command) for command in commands])


def unpack_commands(data: bytes, classes: Sequence[type[Any]]) -> list[Any]:
    """Return the commands of packed rows, whose numbers count in `classes`."""
    commands = [classes[number](*fields) for number, *fields in unpack(data)]
    return [
        command._replace(instrument=Instrument(*command.instrument))
        if isinstance(command, AddInstrument | PlaceInstrument)
        else command
        for command in commands
    ]


def rows_segment(commands: Sequence[Any], *, remaining_ms: int = 5_000) -> Segment:
    """Return a segment of rows, from the exchange itself rather than a client."""
    return Segment(int(SegmentKind.ROWS), 0, 0, remaining_ms, pack_commands(commands))


class _RowsType:
    """A machine whose commands all come as rows."""

    _commands: tuple[type[Any], ...]

    def decode(self, segment: Segment) -> list[Any]:
        return unpack_commands(segment.data, self._commands)

    def encode(self, segment: Segment, results: Sequence[Any]) -> bytes:
        return pack(results)

    def tick(self) -> Segment | None:
        return None

    def first_segment(self) -> Segment | None:
        return None

    def pack_state(self, machine: Any) -> bytes:
        return pack(machine.state())

    def state_hash(self, machine: Any) -> bytes:
        digest: bytes = machine.state_hash()
        return digest

    def dump(self, machine: Any, epoch: int) -> bytes:
        return pack((epoch, *machine.state()))

    def query(self, machine: Any, request: bytes) -> bytes:
        return pack(machine.state())


class LedgerType(_RowsType):
    """The ledger. Its feed carries accounts, keys, assets and entries; its dump all but the entries, as
    (epoch, sequence, time, accounts, API keys, assets, balances by account).

    Query: ("entries", account, asset, before entry id, limit); the answer is packed rows of `LedgerEntry`.
    """

    name = "ledger"
    version = Ledger.VERSION
    _commands = LEDGER_COMMANDS

    def new(self) -> Ledger:
        return Ledger()

    def unpack_state(self, data: bytes) -> Ledger:
        return Ledger.restore(unpack(data))

    def dump(self, machine: Ledger, epoch: int) -> bytes:
        *head, balances = machine.state()
        assets, available, *_ = balances
        return pack((epoch, *head, assets, available))

    def query(self, machine: Ledger, request: bytes) -> bytes:
        match unpack(request):
            case ("entries", account, asset, before_entry_id, limit):
                return pack(machine.balances.entries_of(account, asset, before_entry_id, limit))
            case other:
                raise ValueError(f"unknown query {other[0]!r}")


class ControlType(_RowsType):
    """The supervisor's memory."""

    name = "control"
    version = Control.VERSION
    _commands = CONTROL_COMMANDS

    def new(self) -> Control:
        return Control()

    def unpack_state(self, data: bytes) -> Control:
        return Control.restore(unpack(data))


ResultClass = Callable[..., Any]


def unpack_results(data: bytes, result: ResultClass) -> list[Any]:
    """Return the results of a rows segment as instances of `result`."""
    return [result(*row) for row in unpack(data)]


def unpack_ledger_result(data: bytes) -> LedgerResult:
    """Return the result of a segment with one ledger command."""
    (row,) = unpack_results(data, LedgerResult)
    result: LedgerResult = row
    return result if result.entry is None else result._replace(entry=LedgerEntry(*result.entry))
