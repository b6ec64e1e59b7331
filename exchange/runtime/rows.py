"""Commands and results as packed rows: the encoding of whatever is not on the hot path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from exchange.engine.channel import AnswerFunds, AskFunds, FundsAnswer, RecallFunds, ReturnFunds
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
from exchange.engine.control import (
    Control,
    DrainNode,
    HoldStage,
    NoteBreak,
    NoteMaintenance,
    Park,
    PlaceInstrument,
    Promote,
    TakeIncarnation,
)
from exchange.engine.instrument import Instrument
from exchange.engine.ledger import Ledger
from exchange.engine.ledger_words import (
    CreateAccount,
    CreateApiKey,
    CreateAsset,
    Deposit,
    EndWaits,
    LedgerEntry,
    LedgerResult,
    RevokeApiKey,
    SetTier,
    Transfer,
    Withdraw,
)
from exchange.engine.settings_history import NoteRollout, ProposeSettings
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
LEDGER_COMMANDS = (
    CreateAccount,
    CreateApiKey,
    RevokeApiKey,
    CreateAsset,
    Deposit,
    Withdraw,
    Transfer,
    AskFunds,
    ReturnFunds,
    EndWaits,
    SetTier,
)
CONTROL_COMMANDS = (
    TakeIncarnation,
    PlaceInstrument,
    HoldStage,
    NoteBreak,
    Promote,
    DrainNode,
    NoteMaintenance,
    Park,
    ProposeSettings,
    NoteRollout,
)

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

    def waits(self, results: Sequence[Any]) -> bool:
        return False

    def tick(self) -> Segment | None:
        return None

    def first_segment(self) -> Segment | None:
        return None

    def pack_state(self, machine: Any) -> bytes:
        return pack(machine.state())

    def dump(self, machine: Any, epoch: int) -> bytes:
        return pack((epoch, *machine.state()))

    def query(self, machine: Any, request: bytes) -> bytes:
        return pack(machine.state())


class LedgerType(_RowsType):
    """The ledger. Its feed carries accounts, keys, assets, entries, and what it says to shards; its dump is (epoch,
    sequence, time, accounts, API keys, assets, balances by account, what is out by shard and account).

    Queries: ("entries", account, asset, before entry id, limit), answered by packed rows of `LedgerEntry`;
    ("channel", shard) by (sequence, rows of `FundsAnswer`, rows of `RecallFunds`): what the shard may not have yet;
    ("money",) by `money_of`, for the auditor.
    """

    name = "ledger"
    version = Ledger.VERSION
    _commands = LEDGER_COMMANDS

    def new(self) -> Ledger:
        return Ledger()

    def tick(self) -> Segment | None:
        return rows_segment([EndWaits()])

    def unpack_state(self, data: bytes) -> Ledger:
        return Ledger.restore(unpack(data))

    def dump(self, machine: Ledger, epoch: int) -> bytes:
        accounts, api_keys = list(machine.accounts.values()), list(machine.api_keys.values())
        assets, _, available, out = _money_rows(machine)
        return pack((epoch, machine.sequence, machine.time_ns, accounts, api_keys, assets, available, out))

    def query(self, machine: Ledger, request: bytes) -> bytes:
        match unpack(request):
            case ("entries", account, asset, before_entry_id, limit):
                return pack(machine.balances.entries_of(account, asset, before_entry_id, limit))
            case ("channel", shard):
                grants = machine.grants
                return pack((machine.sequence, grants.answers_to(shard), grants.open_recalls(shard)))
            case ("money",):
                return pack(money_of(machine))
            case other:
                raise ValueError(f"unknown query {other[0]!r}")


def _money_rows(ledger: Ledger) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Return assets, supply, balances by account, and what is out by shard and account.

    The state has all that too, and a million entries, which would take a second.
    """
    balances = ledger.balances
    out = [
        (shard, [(account, list(assets.items())) for account, assets in accounts.items()])
        for shard, accounts in ledger.grants.out.items()
    ]
    available = [(account, list(assets.items())) for account, assets in balances.available.items()]
    return list(balances.assets.values()), list(balances.supply.items()), available, out


def money_of(ledger: Ledger) -> tuple[Any, ...]:
    """Return all money: (sequence, assets, supply by asset, balances by account, what is out by shard and account,
    the answers that shards may not have by shard).
    """
    answers = [(shard, list(channel.answers.values())) for shard, channel in ledger.grants.channels.items()]
    return ledger.sequence, *_money_rows(ledger), answers


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
    (result,) = unpack_ledger_results(data)
    return result


def unpack_ledger_results(data: bytes) -> list[LedgerResult]:
    """Return the results of a segment with ledger commands."""
    return [_whole_ledger_result(LedgerResult(*row)) for row in unpack(data)]


def _whole_ledger_result(result: LedgerResult) -> LedgerResult:
    entry = None if result.entry is None else LedgerEntry(*result.entry)
    answer = None if result.answer is None else FundsAnswer(*result.answer)
    return result._replace(entry=entry, answer=answer)
