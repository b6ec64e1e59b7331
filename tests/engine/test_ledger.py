"""The ledger: its refusals one by one, and money that neither appears nor vanishes, whatever is asked."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exchange.engine import balances
from exchange.engine.ledger import ALLOWED_IPS_MAX, API_KEYS_PER_ACCOUNT_MAX, Ledger
from exchange.engine.ledger_words import (
    AccountChanged,
    AccountTier,
    CreateAccount,
    CreateApiKey,
    CreateAsset,
    Deposit,
    EntryMade,
    EntryType,
    LedgerRefusal,
    LedgerResult,
    RevokeApiKey,
    SetTier,
    Transfer,
    Withdraw,
)
from exchange.engine.money import AMOUNT_MAX
from exchange.runtime.messages import pack, unpack
from exchange.runtime.rows import LedgerType

ALICE, BOB = 1, 2


def do(ledger: Ledger, command: Any, time_ns: int = 10) -> LedgerResult:
    (result,) = ledger.apply(time_ns, [command]).results
    ledger.validate()
    return result


@pytest.fixture
def ledger() -> Ledger:
    """Alice has 100 USD in cents, Bob nothing."""
    ledger = Ledger()
    for command in (CreateAccount("alice"), CreateAccount("bob"), CreateAsset("USD", 2)):
        assert not do(ledger, command).refusal
    assert not do(ledger, Deposit(ALICE, "USD", 10_000, "first")).refusal
    return ledger


def test_a_deposit_is_entered(ledger: Ledger) -> None:
    result = do(ledger, Deposit(ALICE, "USD", 50, "second"), 99)
    assert result.entry is not None
    assert tuple(result.entry) == (2, ALICE, "USD", EntryType.DEPOSIT, 50, 10_050, "second", 0, 99, ledger.sequence)
    assert ledger.balances.of(ALICE, "USD") == 10_050


def test_a_transfer_makes_an_entry_on_both_sides(ledger: Ledger) -> None:
    applied = ledger.apply(10, [Transfer(ALICE, BOB, "USD", 30, "gift")])
    entries = [event.entry for event in applied.events if isinstance(event, EntryMade)]
    assert [(e.account, e.change, e.available, e.counterparty) for e in entries] == [
        (ALICE, -30, 9_970, BOB),
        (BOB, 30, 30, ALICE),
    ]
    assert applied.results[0].entry == entries[0]


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (CreateAsset("usd", 2), LedgerRefusal.ASSET_INVALID),
        (CreateAsset("", 2), LedgerRefusal.ASSET_INVALID),
        (CreateAsset("EUR", 19), LedgerRefusal.ASSET_INVALID),
        (CreateAsset("EUR", -1), LedgerRefusal.ASSET_INVALID),
        (CreateAsset("USD", 3), LedgerRefusal.ASSET_EXISTS),
        (CreateAccount("no spaces"), LedgerRefusal.NAME_INVALID),
        (Deposit(ALICE, "EUR", 1, "a"), LedgerRefusal.ASSET_UNKNOWN),
        (Deposit(99, "USD", 1, "a"), LedgerRefusal.ACCOUNT_UNKNOWN),
        (Deposit(ALICE, "USD", 0, "a"), LedgerRefusal.AMOUNT_INVALID),
        (Deposit(ALICE, "USD", -1, "a"), LedgerRefusal.AMOUNT_INVALID),
        (Deposit(ALICE, "USD", AMOUNT_MAX + 1, "a"), LedgerRefusal.AMOUNT_TOO_LARGE),
        (Deposit(ALICE, "USD", AMOUNT_MAX, "a"), LedgerRefusal.AMOUNT_TOO_LARGE),
        (Deposit(ALICE, "USD", 1, ""), LedgerRefusal.REFERENCE_INVALID),
        (Deposit(ALICE, "USD", 1, "x" * 65), LedgerRefusal.REFERENCE_INVALID),
        (Deposit(ALICE, "USD", 1, "first"), LedgerRefusal.REFERENCE_REUSED),
        (Deposit(BOB, "USD", 10_000, "first"), LedgerRefusal.REFERENCE_REUSED),
        (Withdraw(ALICE, "USD", 10_001, "a"), LedgerRefusal.INSUFFICIENT_FUNDS),
        (Withdraw(BOB, "USD", 1, "a"), LedgerRefusal.INSUFFICIENT_FUNDS),
        (Transfer(ALICE, ALICE, "USD", 1, "a"), LedgerRefusal.TRANSFER_TO_SELF),
        (Transfer(ALICE, 99, "USD", 1, "a"), LedgerRefusal.ACCOUNT_UNKNOWN),
        (Transfer(99, ALICE, "USD", 1, "a"), LedgerRefusal.ACCOUNT_UNKNOWN),
        (Transfer(BOB, ALICE, "USD", 1, "a"), LedgerRefusal.INSUFFICIENT_FUNDS),
        (CreateApiKey(99, "k", "h", (1,)), LedgerRefusal.ACCOUNT_UNKNOWN),
        (CreateApiKey(ALICE, "k", "h", ()), LedgerRefusal.PERMISSIONS_INVALID),
        (CreateApiKey(ALICE, "k", "h", (9,)), LedgerRefusal.PERMISSIONS_INVALID),
        (CreateApiKey(ALICE, "k", "h", (1,), 10), LedgerRefusal.EXPIRE_TIME_INVALID),
        (CreateApiKey(ALICE, "k", "h", (1,), 0, ("10.0.0.0/33",)), LedgerRefusal.ADDRESS_INVALID),
        (CreateApiKey(ALICE, "k", "h", (1,), 0, ("::1",) * (ALLOWED_IPS_MAX + 1)), LedgerRefusal.ADDRESS_INVALID),
        (RevokeApiKey("k"), LedgerRefusal.KEY_UNKNOWN),
    ],
)
def test_what_is_refused_changes_nothing(ledger: Ledger, command: Any, refusal: LedgerRefusal) -> None:
    before = ledger.state()[2:]
    result = do(ledger, command)
    assert (LedgerRefusal(result.refusal), result.entry) == (refusal, None)
    assert ledger.state()[2:] == before


def test_a_repeat_of_a_reference_is_answered_with_the_first_entry(ledger: Ledger) -> None:
    for command in (
        Deposit(ALICE, "USD", 70, "d"),
        Withdraw(ALICE, "USD", 20, "w"),
        Transfer(ALICE, BOB, "USD", 10, "t"),
    ):
        first = do(ledger, command)
        available = ledger.balances.of(ALICE, "USD")
        again = do(ledger, command)
        assert (again.entry, again.duplicate, first.duplicate) == (first.entry, True, False)
        assert ledger.balances.of(ALICE, "USD") == available


def test_transfers_of_two_accounts_may_have_the_same_reference(ledger: Ledger) -> None:
    assert not do(ledger, Transfer(ALICE, BOB, "USD", 10, "t")).refusal
    assert not do(ledger, Transfer(BOB, ALICE, "USD", 10, "t")).refusal


def test_a_reference_that_was_refused_can_be_used(ledger: Ledger) -> None:
    assert do(ledger, Withdraw(ALICE, "USD", 99_999, "w")).refusal
    assert not do(ledger, Withdraw(ALICE, "USD", 1, "w")).refusal


def test_keys_are_limited_and_revoked_ones_make_room(ledger: Ledger) -> None:
    for number in range(API_KEYS_PER_ACCOUNT_MAX):
        assert not do(ledger, CreateApiKey(ALICE, f"k{number}", f"h{number}", (1,))).refusal
    assert do(ledger, CreateApiKey(ALICE, "more", "h", (1,))).refusal == LedgerRefusal.TOO_MANY_KEYS
    assert do(ledger, CreateApiKey(BOB, "k0", "h", (1,))).refusal == LedgerRefusal.KEY_EXISTS
    assert not do(ledger, RevokeApiKey("k0")).refusal
    assert not do(ledger, CreateApiKey(ALICE, "more", "h", (1,), 11, ("10.1.2.3/8", "2001:db8::/32"))).refusal


def test_old_entries_go_with_their_references(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balances, "ENTRIES_KEPT", 4)
    for number in range(10):
        do(ledger, Transfer(ALICE, BOB, "USD", 1, f"t{number}"))
    assert [entry.reference for entry in ledger.balances.entries] == ["t8", "t8", "t9", "t9"]
    assert do(ledger, Transfer(ALICE, BOB, "USD", 1, "t9")).duplicate
    assert not do(ledger, Transfer(ALICE, BOB, "USD", 1, "t0")).duplicate


def test_entries_come_newest_first_in_pages(ledger: Ledger) -> None:
    do(ledger, CreateAsset("BTC", 8))
    for number in range(5):
        do(ledger, Deposit(ALICE, "BTC" if number % 2 else "USD", 1, f"d{number}"))
    of = ledger.balances.entries_of
    assert [entry.reference for entry in of(ALICE, "", 0, 3)] == ["d4", "d3", "d2"]
    assert [entry.reference for entry in of(ALICE, "", of(ALICE, "", 0, 3)[-1].entry_id, 9)] == ["d1", "d0", "first"]
    assert [entry.reference for entry in of(ALICE, "BTC", 0, 9)] == ["d3", "d1"]
    assert of(BOB, "", 0, 9) == []


def test_a_state_of_large_amounts_survives_packing(ledger: Ledger) -> None:
    do(ledger, CreateAsset("ETH", 18))
    do(ledger, Deposit(BOB, "ETH", AMOUNT_MAX, "whale"))
    do(ledger, Withdraw(BOB, "ETH", 2**64, "w"))
    kind = LedgerType()
    restored = kind.unpack_state(kind.pack_state(ledger))
    assert restored.state() == ledger.state()
    restored.validate()
    assert unpack(pack([-(2**70), 2**64, 2**63, -(2**63) - 1])) == (-(2**70), 2**64, 2**63, -(2**63) - 1)


ACCOUNTS = st.integers(1, 4)
ASSETS = st.sampled_from(["USD", "BTC", "EUR"])
AMOUNTS = st.integers(-1, 60) | st.sampled_from([AMOUNT_MAX, AMOUNT_MAX + 1, 2**64])
REFERENCES = st.sampled_from([f"r{n}" for n in range(6)])


class LedgerMachine(RuleBasedStateMachine):
    """A ledger beside a model that has one number per account and asset, and the set of what was done."""

    @initialize()
    def start(self) -> None:
        self.ledger = Ledger()
        self.model: Counter[tuple[int, str]] = Counter()
        self.done: dict[tuple[Any, ...], Any] = {}
        for name in ("a", "b", "c"):
            do(self.ledger, CreateAccount(name))
        for symbol in ("USD", "BTC"):
            do(self.ledger, CreateAsset(symbol, 2))

    def enter(self, command: Any, name: tuple[Any, ...], moves: list[tuple[int, int]]) -> None:
        result = do(self.ledger, command)
        if name in self.done:
            same = self.done[name] == command
            assert result.duplicate == same
            assert result.refusal == (LedgerRefusal.NONE if same else LedgerRefusal.REFERENCE_REUSED)
            return
        assert not result.duplicate
        accounts = [account for account, _ in moves]
        possible = (
            command.asset != "EUR"
            and 0 < command.amount <= AMOUNT_MAX
            and max(accounts) <= 3
            and len(set(accounts)) == len(accounts)
            and all(self.model[account, command.asset] + change >= 0 for account, change in moves)
            and sum(n for (_, asset), n in self.model.items() if asset == command.asset) + sum(c for _, c in moves)
            <= AMOUNT_MAX
        )
        assert bool(result.refusal) != possible, LedgerRefusal(result.refusal)
        if possible:
            self.done[name] = command
            for account, change in moves:
                self.model[account, command.asset] += change

    @rule(account=ACCOUNTS, asset=ASSETS, amount=AMOUNTS, reference=REFERENCES)
    def deposit(self, account: int, asset: str, amount: int, reference: str) -> None:
        self.enter(Deposit(account, asset, amount, reference), ("d", reference), [(account, amount)])

    @rule(account=ACCOUNTS, asset=ASSETS, amount=AMOUNTS, reference=REFERENCES)
    def withdraw(self, account: int, asset: str, amount: int, reference: str) -> None:
        self.enter(Withdraw(account, asset, amount, reference), ("w", reference), [(account, -amount)])

    @rule(account=ACCOUNTS, to=ACCOUNTS, asset=ASSETS, amount=AMOUNTS, reference=REFERENCES)
    def transfer(self, account: int, to: int, asset: str, amount: int, reference: str) -> None:
        moves = [(account, -amount), (to, amount)]
        self.enter(Transfer(account, to, asset, amount, reference), ("t", account, reference), moves)

    @rule()
    def restart(self) -> None:
        kind = LedgerType()
        restored = kind.unpack_state(kind.pack_state(self.ledger))
        assert restored.state() == self.ledger.state()
        self.ledger = restored

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        held = {(a, s): n for a, rows in self.ledger.balances.available.items() for s, n in rows.items() if n}
        assert held == {key: n for key, n in self.model.items() if n}


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_an_account_has_a_tier_which_is_part_of_the_state_and_told(ledger: Ledger) -> None:
    assert ledger.accounts[ALICE].tier == AccountTier.STANDARD
    applied = ledger.apply(10, [SetTier(ALICE, int(AccountTier.MAKER)), SetTier(ALICE, int(AccountTier.MAKER))])
    assert [event.account.tier for event in applied.events if isinstance(event, AccountChanged)] == [2], "told once"
    assert Ledger.restore(LedgerType().unpack_state(LedgerType().pack_state(ledger)).state()).accounts[ALICE].tier == 2
    before = ledger.state()
    assert do(ledger, SetTier(99, 2)).refusal == LedgerRefusal.ACCOUNT_UNKNOWN
    assert do(ledger, SetTier(ALICE, 4)).refusal == LedgerRefusal.TIER_INVALID
    assert do(ledger, SetTier(ALICE, 0)).refusal == LedgerRefusal.TIER_INVALID
    assert do(ledger, SetTier(ALICE, 1)).refusal == 0
    assert ledger.state() != before
