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
    Transfer,
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
        assert kind.pack_state(copy) == kind.pack_state(self.ledger)
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


def test_a_part_of_what_is_free_goes_along_for_the_orders_to_come() -> None:
    till = Till()
    till.deposit(ALICE, 101)
    assert till.ask("s0", ALICE, 40) == (1, GRANTED, 70)
    assert till.of(ALICE) == 31
    # What is asked for in advance is less urgent than to be refused: it gets what there is.
    assert till.ask("s0", ALICE, 40, is_urgent=False) == (2, GRANTED, 31)
    assert till.ask("s0", ALICE, 40, is_urgent=False) == (3, DENIED, 0)


def test_nobody_but_who_has_the_money_and_no_asset_but_those_that_exist_are_granted() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    for n, (account, asset, amount) in enumerate(
        [(BOB, "USDT", 1), (99, "USDT", 1), (ALICE, "EUR", 1), (ALICE, "USDT", 0)], 1
    ):
        assert till.ask("s0", account, amount, asset=asset) == (n, DENIED, 0)


def test_a_repeat_gets_the_same_answer_and_moves_nothing() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    ask, give = AskFunds("s0", 1, 1, ALICE, "USDT", 40, True), ReturnFunds("s0", 1, 2, ALICE, "USDT", 10, 0)
    for _ in range(2):
        assert till.answer_to(ask) == (1, GRANTED, 70)
        assert till.answer_to(give) == (2, DONE, 0)
        assert till.of(ALICE) == 40


def test_answers_are_forgotten_when_the_shard_has_them_and_older_messages_are_ignored() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    for _ in range(3):
        till.ask("s0", ALICE, 10)
    till.give("s0", ALICE, 5, low=3)
    grants = till.ledger.grants
    assert [answer.n for answer in grants.answers_to("s0")] == [3, 4]
    before = till.of(ALICE)
    assert till.answer_to(AskFunds("s0", 1, 1, ALICE, "USDT", 10, True)) == (1, DENIED, 0)
    assert till.answer_to(ReturnFunds("s0", 1, 2, ALICE, "USDT", 10, 0)) == (2, DONE, 0)
    assert till.of(ALICE) == before
    # And nothing is remembered of it.
    assert [answer.n for answer in till.ledger.grants.answers_to("s0")] == [3, 4]


def test_what_is_missing_is_recalled_from_all_other_shards_where_the_account_has_been() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.deposit(BOB, 1)
    till.ask("s0", ALICE, 50)
    till.ask("s1", ALICE, 20)
    till.ask("s3", BOB, 1)
    left = till.of(ALICE)
    assert till.ask("s2", ALICE, 40).status == WAITING
    recalls = [said for said in till.said if isinstance(said, RecallMade)]
    assert recalls == [RecallMade(shard, 1, 1, ALICE, "USDT", 40 - left) for shard in ("s0", "s1")]
    till.give("s0", ALICE, 3, 1)
    assert till.said == []
    # With the second answer there is enough: it is told as soon as that is so.
    till.give("s1", ALICE, 40 - left, 1)
    assert till.said == [AnswerMade("s2", 1, GRANTED, 40 + 3 // 2)]


def test_a_wait_ends_in_refusal_when_all_have_answered_and_it_is_not_enough() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    assert till.ask("s1", ALICE, 60).status == WAITING
    till.give("s0", ALICE, 59, 1)
    assert till.said == [AnswerMade("s1", 1, DENIED, 0)]
    assert till.of(ALICE) == 59


def test_who_comes_first_is_served_first_and_other_accounts_and_assets_do_not_wait() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.deposit(BOB, 100)
    till.deposit(ALICE, 100, "BTC")
    till.ask("s0", ALICE, 100)
    assert till.ask("s1", ALICE, 50).status == WAITING
    assert till.ask("s2", ALICE, 20).status == WAITING
    assert till.ask("s1", BOB, 50).status == GRANTED
    assert till.ask("s1", ALICE, 50, asset="BTC").status == GRANTED
    # Enough for the second, but it is the first one's turn.
    till.deposit(ALICE, 30)
    assert till.said == []
    till.give("s0", ALICE, 50, 1)
    assert till.said[0] == AnswerMade("s1", 1, GRANTED, 65)
    # What is left is less than the second wants: it asks all others, the first one among them.
    recalls = [said for said in till.said if isinstance(said, RecallMade)]
    assert recalls == [RecallMade("s0", 2, 2, ALICE, "USDT", 5), RecallMade("s1", 1, 1, ALICE, "USDT", 5)]


def test_money_asked_for_in_advance_is_refused_while_others_wait() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    assert till.ask("s1", ALICE, 50).status == WAITING
    till.deposit(ALICE, 30)
    assert till.ask("s0", ALICE, 10, is_urgent=False) == (2, DENIED, 0)


def test_money_asked_for_in_advance_that_is_elsewhere_is_fetched_for_the_next_order_and_nobody_waits_for_it() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    assert till.ask("s1", ALICE, 30, is_urgent=False) == (1, DENIED, 0)
    assert till.said == [RecallMade("s0", 1, 1, ALICE, "USDT", 0)]
    # One at a time.
    assert till.ask("s2", ALICE, 30, is_urgent=False) == (1, DENIED, 0)
    assert till.said == []
    till.give("s0", ALICE, 50, 1)
    assert till.said == []
    assert till.ask("s1", ALICE, 30) == (2, GRANTED, 30 + 20 // 2)


def test_what_there_is_of_money_asked_for_in_advance_is_granted_at_once() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 80)
    assert till.ask("s1", ALICE, 30, is_urgent=False) == (1, GRANTED, 10)
    assert till.said == [RecallMade("s0", 1, 1, ALICE, "USDT", 0)]


def test_a_recall_is_open_until_it_is_answered_and_its_answer_counts_once() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    till.ask("s1", ALICE, 50)
    assert [recall.m for recall in till.ledger.grants.open_recalls("s0")] == [1]
    till.later()
    assert [recall.m for recall in till.ledger.grants.open_recalls("s0")] == [1]
    give = ReturnFunds("s0", 2, 2, ALICE, "USDT", 40, 1)
    for _ in range(2):
        assert till.answer_to(give) == (2, DONE, 0)
        assert till.of(ALICE) == 40
        assert till.ledger.grants.open_recalls("s0") == []


def test_the_end_of_a_wait_lets_the_next_one_begin_which_does_not_wait_for_who_did_not_answer() -> None:
    till = Till()
    till.deposit(ALICE, 110)
    till.ask("s0", ALICE, 100)
    till.ask("s2", ALICE, 5)
    assert till.ask("s1", ALICE, 50).status == WAITING
    till.time_ns += WAIT_NS_MAX // 2
    assert till.ask("s3", ALICE, 10).status == WAITING
    till.later(WAIT_NS_MAX // 2)
    assert till.said == [AnswerMade("s1", 1, UNAVAILABLE, 0), AnswerMade("s3", 1, UNAVAILABLE, 0)]
    # s2 comes back: then it alone is asked.
    till.give("s2", ALICE, 0, 1)
    assert till.ask("s3", ALICE, 10).status == WAITING
    assert [(said.shard, said.m) for said in till.said if isinstance(said, RecallMade)] == [("s2", 2)]


def test_a_withdrawal_that_is_repeated_while_it_waits_is_done_once() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    first = till.do(Withdraw(ALICE, "USDT", 60, "w"))
    assert first.waits
    assert till.do(Withdraw(ALICE, "USDT", 60, "w")).waits == first.waits
    assert till.do(Withdraw(ALICE, "USDT", 61, "w")).refusal == LedgerRefusal.REFERENCE_REUSED
    till.give("s0", ALICE, 60, 1)
    again = till.do(Withdraw(ALICE, "USDT", 60, "w"))
    assert (again.duplicate, again.waits, till.of(ALICE)) == (True, 0, 0)
    assert till.ledger.balances.supply["USDT"] == 40


def test_a_withdrawal_that_waited_in_vain_is_refused_and_its_reference_can_be_used() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    first = till.do(Withdraw(ALICE, "USDT", 60, "w"))
    till.give("s0", ALICE, 0, 1)
    assert till.said == [MoveSettled(first.waits, int(LedgerRefusal.INSUFFICIENT_FUNDS), None)]
    second = till.do(Withdraw(ALICE, "USDT", 60, "w"))
    till.later()
    assert till.said == [MoveSettled(second.waits, int(LedgerRefusal.FUNDS_UNAVAILABLE), None)]
    till.deposit(ALICE, 60)
    assert not till.do(Withdraw(ALICE, "USDT", 60, "w")).refusal


def test_a_transfer_serves_who_waits_for_the_money_that_it_brings() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.deposit(BOB, 20)
    till.ask("s0", BOB, 20)
    assert till.ask("s1", BOB, 50).status == WAITING
    till.do(Transfer(ALICE, BOB, "USDT", 60, "t"))
    assert till.said == [AnswerMade("s1", 1, GRANTED, 55)]


def test_a_transfer_that_waited_serves_the_line_of_who_gets_it() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.deposit(BOB, 20)
    till.ask("s0", ALICE, 100)
    till.ask("s0", BOB, 20)
    moved = till.do(Transfer(ALICE, BOB, "USDT", 60, "t"))
    assert till.ask("s1", BOB, 50).status == WAITING
    till.give("s0", ALICE, 60, 1)
    settled, answered = till.said
    assert (settled.n, settled.refusal, answered) == (moved.waits, 0, AnswerMade("s1", 1, GRANTED, 55))
    assert till.ledger.grants.lines == {}


def test_fees_come_back_from_every_shard_when_the_house_withdraws_them() -> None:
    till = Till()
    till.deposit(ALICE, 100)
    till.ask("s0", ALICE, 100)
    # What Alice has paid there is the house's now.
    result = till.do(Withdraw(HOUSE, "USDT", 7, "w"))
    assert till.said == [RecallMade("s0", 1, 1, HOUSE, "USDT", 7)]
    till.give("s0", HOUSE, 7, 1)
    assert till.said[0].n == result.waits
    assert till.ledger.balances.supply["USDT"] == 93
