"""The ledger's side of the channel: who is served when, what is recalled, and what is answered to whom."""

from __future__ import annotations

from typing import Any

from exchange.engine.channel import AnswerStatus, AskFunds, FundsAnswer, ReturnFunds
from exchange.engine.grants import WAIT_NS_MAX
from exchange.engine.ledger import Ledger
from exchange.engine.ledger_words import (
    AnswerMade,
    ChannelEvent,
    CreateAccount,
    CreateAsset,
    Deposit,
    EndWaits,
    LedgerRefusal,
    LedgerResult,
    MoveSettled,
    RecallMade,
    Withdraw,
)
from exchange.runtime.rows import LedgerType

START_NS = 1_700_000_000_000_000_000
HOUSE, ALICE, BOB = 1, 2, 3
WAITING, GRANTED, DENIED, UNAVAILABLE, DONE = (int(status) for status in AnswerStatus)


class Till:
    """A ledger, and short ways to tell it things. After each command it is replaced by a copy."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.time_ns = START_NS
        self.said: list[Any] = []
        """What the last command had the ledger say of its own accord."""
        self._sent: dict[str, int] = {}
        for name in ("house", "alice", "bob"):
            self.do(CreateAccount(name))
        for asset in ("USDT", "BTC"):
            self.do(CreateAsset(asset, 2))

    def do(self, command: Any) -> LedgerResult:
        (result,), events = self.ledger.apply(self.time_ns, [command])
        self.said = [
            event.body
            for event in events
            if isinstance(event, ChannelEvent) and isinstance(event.body, AnswerMade | RecallMade | MoveSettled)
        ]
        self.ledger.validate()
        kind = LedgerType()
        copy = kind.unpack_state(kind.pack_state(self.ledger))
        assert kind.state_hash(copy) == kind.state_hash(self.ledger)
        self.ledger = copy
        return result

    def deposit(self, account: int, amount: int, asset: str = "USDT") -> None:
        self.do(Deposit(account, asset, amount, f"d{self.ledger.sequence}"))

    def ask(
        self, shard: str, account: int, amount: int, *, asset: str = "USDT", is_urgent: bool = True, low: int = 1
    ) -> FundsAnswer:
        """Send the shard's next message."""
        n = self._sent[shard] = self._sent.get(shard, 0) + 1
        return self.answer_to(AskFunds(shard, low, n, account, asset, amount, is_urgent))

    def give(
        self, shard: str, account: int, amount: int, recall: int = 0, *, asset: str = "USDT", low: int = 1
    ) -> FundsAnswer:
        n = self._sent[shard] = self._sent.get(shard, 0) + 1
        return self.answer_to(ReturnFunds(shard, low, n, account, asset, amount, recall))

    def answer_to(self, command: AskFunds | ReturnFunds) -> FundsAnswer:
        answer = self.do(command).answer
        assert answer is not None
        return answer

    def of(self, account: int, asset: str = "USDT") -> int:
        return self.ledger.balances.of(account, asset)

    def later(self, ns: int = WAIT_NS_MAX) -> None:
        """Let time pass, and waits end that are due then."""
        self.time_ns += ns
        due_ns = self.ledger.next_timer_ns()
        if due_ns is not None and due_ns <= self.time_ns:
            self.do(EndWaits())


def test_a_withdrawal_is_done_as_soon_as_enough_has_come_back_and_nobody_waits_then() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 40)
    result = till.do(Withdraw(ALICE, "USDT", 90, "w"))
    assert till.said[-1] == RecallMade("s0", 1, 1, ALICE, "USDT", 60)
    till.give("s0", ALICE, 60, 1)
    (settled,) = till.said
    assert (settled.n, settled.refusal) == (result.waits, 0)
    assert till.ledger.grants.lines == {}
    assert till.of(ALICE) == 0


def test_a_shard_that_did_not_answer_in_time_is_not_waited_for_again_and_leaves_it_open_what_there_is() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    assert till.ask("s1", ALICE, 30).status == WAITING
    till.later()
    assert till.said == [AnswerMade("s1", 1, UNAVAILABLE, 0)]
    # Its answer is overdue: nobody asks it again, and nobody knows what it has.
    assert till.ask("s1", ALICE, 30).status == UNAVAILABLE
    result = till.do(Withdraw(ALICE, "USDT", 30, "w"))
    assert till.said == [MoveSettled(result.waits, int(LedgerRefusal.FUNDS_UNAVAILABLE), None)]
    # Once it has answered, it is asked again.
    till.give("s0", ALICE, 0, 1)
    assert till.ask("s1", ALICE, 30).status == WAITING
    till.give("s0", ALICE, 10, 2)
    assert till.said == [AnswerMade("s1", 3, DENIED, 0)]


def test_a_grant_that_a_shard_may_not_have_yet_is_told_again_before_a_recall_of_the_same_money() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.deposit(BOB, 10)
    till.deposit(ALICE, 10, "BTC")
    granted = till.ask("s0", ALICE, 100)
    till.ask("s0", BOB, 10)
    till.ask("s0", ALICE, 10, asset="BTC")
    till.ask("s1", ALICE, 30)
    assert till.said == [AnswerMade("s0", *granted), RecallMade("s0", 1, 1, ALICE, "USDT", 30)]
    till.give("s0", ALICE, 30, 1, low=2)
    till.ask("s1", ALICE, 30)
    assert till.said == [RecallMade("s0", 2, 2, ALICE, "USDT", 30)]
