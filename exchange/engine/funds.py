"""The money that a shard holds in escrow: whose it is, what of it is free, and what goes to and from the ledger.

A `Purse` is what an account has of an asset here and has not bound; what its open orders bind is counted where they
rest, in the account's `Trader` of that book. Purse and holds together are the account's escrow, which trading alone
moves between accounts, and messages to and from the ledger alone make more or less.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from exchange.engine.channel import HOUSE, Ask, Message, Return, Seen
from exchange.engine.orders import Order

PPM: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
IDLE_NS: Final = 10 * NS_PER_S
"""What did not change for so long goes back to the ledger."""
IDLE_WALLETS_PER_TICK: Final = 256
"""Bounds what one command does."""
DRY_NS: Final = NS_PER_S
"""How long nothing is asked for in advance after the ledger had nothing."""


def fee_of(amount: int, ppm: int) -> int:
    """Return the fee on an amount, in its units: rounded down, and a rebate (a negative fee) rounded to less, too.

    So a hold of the fee on the whole covers the fees on its parts, and what is taken covers what is paid back.
    """
    return amount * ppm // PPM if ppm >= 0 else -(amount * -ppm // PPM)


def _priority_of(order: Order) -> int:
    return order.priority


class Purse:
    """What an account has of an asset and has not bound. `received`: from the ledger, less what went back."""

    __slots__ = ("account", "asking", "asset", "available", "dry_until_ns", "received", "seen")

    def __init__(self, account: int, asset: str) -> None:
        self.account = account
        self.asset = asset
        self.available = 0
        self.received = 0
        self.asking = 0
        """Number of the message that asks in advance, 0: none does."""
        self.dry_until_ns = 0
        self.seen = -1
        """What was available when it was last looked at, to see whether it lies idle."""


class Trader:
    """An account in one book: what its orders there hold, where that comes from, and the orders themselves.

    The open orders stand in no order, and each knows its place among them: the one that stands last takes the place of
    one that leaves, so that no others have to be fetched from memory.
    """

    __slots__ = ("account", "base", "base_held", "open_orders", "orders", "quote", "quote_held")

    def __init__(self, account: int, base: Purse, quote: Purse) -> None:
        self.account = account
        self.base = base
        self.quote = quote
        self.base_held = 0
        self.quote_held = 0
        self.open_orders = 0
        self.orders: list[Order] = []

    def __iter__(self) -> Iterator[Order]:
        """Iterate over the open orders by priority. They may be closed meanwhile."""
        return iter(sorted(self.orders, key=_priority_of))

    def bind(self, is_buy: bool, amount: int) -> None:
        """Bind free money to orders, or free it (`amount` < 0): of the quote asset for buys, of the base for sells."""
        if is_buy:
            self.quote.available -= amount
            self.quote_held += amount
        else:
            self.base.available -= amount
            self.base_held += amount

    def add(self, order: Order) -> None:
        """Count an order that has come to rest."""
        order.own_place = self.open_orders
        self.orders.append(order)
        self.open_orders += 1

    def remove(self, order: Order) -> None:
        """Count an order no longer."""
        last = self.orders.pop()
        if last is not order:
            place = order.own_place
            self.orders[place] = last
            last.own_place = place
        self.open_orders -= 1


class Wallet:
    """All that an account has here. `due_ns`: when it is next looked at for money that lies idle, 0 never."""

    __slots__ = ("account", "due_ns", "purses", "traders")

    def __init__(self, account: int) -> None:
        self.account = account
        self.due_ns = 0
        self.purses: dict[str, Purse] = {}
        self.traders: list[Trader] = []

    def held(self, asset: str) -> int:
        """Return what the account's orders hold of an asset, in all books."""
        held = 0
        for trader in self.traders:
            if trader.base.asset == asset:
                held += trader.base_held
            elif trader.quote.asset == asset:
                held += trader.quote_held
        return held


class Funds:
    """The wallets of a shard, and its side of the channel to the ledger."""

    __slots__ = ("idle", "next_n", "outbox", "recalls", "wallets")

    def __init__(self) -> None:
        self.wallets: dict[int, Wallet] = {}
        self.outbox: dict[int, Message] = {}
        """Messages to the ledger whose answer is not journaled yet, by number."""
        self.next_n = 1
        self.recalls = Seen()
        self.idle: deque[Wallet] = deque()
        """Wallets that may have money lying idle, the first to look at first."""

    # ---------------------------------------------------------------- purses

    def wallet(self, account: int) -> Wallet:
        """Return the account's wallet, a new one the first time."""
        wallet = self.wallets.get(account)
        if wallet is None:
            wallet = self.wallets[account] = Wallet(account)
        return wallet

    def purse(self, account: int, asset: str) -> Purse:
        """Return the account's purse of an asset, an empty one the first time."""
        wallet = self.wallet(account)
        purse = wallet.purses.get(asset)
        if purse is None:
            purse = wallet.purses[asset] = Purse(account, asset)
        return purse

    def trader(self, account: int, base_asset: str, quote_asset: str) -> Trader:
        """Return an account as it enters a book."""
        trader = Trader(account, self.purse(account, base_asset), self.purse(account, quote_asset))
        self.wallet(account).traders.append(trader)
        return trader

    def endow(self, account: int, asset: str, amount: int) -> None:
        """Let an account have money that no ledger granted: for shards that run alone, in replays and benchmarks."""
        purse = self.purse(account, asset)
        purse.available += amount
        purse.received += amount

    def credit(self, account: int, asset: str, amount: int, time_ns: int) -> Purse:
        """Take in what came from the ledger."""
        purse = self.purse(account, asset)
        purse.available += amount
        purse.received += amount
        wallet = self.wallets[account]
        if amount and not wallet.due_ns and account != HOUSE:
            self.watch(wallet, _whole_second(time_ns + IDLE_NS))
        return purse

    # ---------------------------------------------------------------- messages to the ledger

    def ask(self, purse: Purse, amount: int, *, is_urgent: bool) -> int:
        """Ask the ledger for money; return the message's number."""
        n = self.next_n
        self.next_n = n + 1
        self.outbox[n] = Ask(n, purse.account, purse.asset, amount, is_urgent)
        return n

    def ask_ahead(self, purse: Purse, amount: int, time_ns: int) -> None:
        """Ask for the like of what an order has just taken, unless that is under way, or there is nothing to get."""
        if not purse.asking and time_ns >= purse.dry_until_ns:
            purse.asking = self.ask(purse, amount, is_urgent=False)

    def give_back(self, purse: Purse, amount: int, recall: int) -> int:
        """Send free money to the ledger; return the message's number. From now on it is not here."""
        n = self.next_n
        self.next_n = n + 1
        purse.available -= amount
        purse.received -= amount
        self.outbox[n] = Return(n, purse.account, purse.asset, amount, recall)
        return n

    @property
    def low(self) -> int:
        """The lowest number of a message whose answer is still awaited: those below are done with."""
        for n in self.outbox:
            return n
        return self.next_n

    # ---------------------------------------------------------------- money that lies idle

    def watch(self, wallet: Wallet, due_ns: int) -> None:
        """Look at a wallet at some time; those that are watched come due in the order in which they were told."""
        wallet.due_ns = due_ns
        self.idle.append(wallet)

    def next_idle_ns(self) -> int | None:
        """When a wallet is to be looked at next, or None."""
        return self.idle[0].due_ns if self.idle else None

    def idle_purses(self, time_ns: int) -> list[Purse]:
        """Return purses whose money did not change since they were last looked at, of some of the wallets due.

        A wallet that has nothing here, free or held, is looked at no longer: it needs a grant to come alive.
        """
        found: list[Purse] = []
        for _ in range(IDLE_WALLETS_PER_TICK):
            if not self.idle or self.idle[0].due_ns > time_ns:
                break
            wallet = self.idle.popleft()
            is_alive = any(trader.base_held or trader.quote_held for trader in wallet.traders)
            for purse in wallet.purses.values():
                if purse.available:
                    if purse.available == purse.seen:
                        found.append(purse)
                    else:
                        is_alive = True
                purse.seen = purse.available
            if is_alive:
                self.watch(wallet, _whole_second(time_ns + IDLE_NS))
            else:
                wallet.due_ns = 0
        return found

    # ---------------------------------------------------------------- checks

    def validate(self) -> None:
        """Check what must hold between commands; AssertionError says what does not."""
        have: dict[str, int] = {}
        for wallet in self.wallets.values():
            for purse in wallet.purses.values():
                assert purse.available >= 0, f"account {wallet.account} has {purse.available} {purse.asset}"
                have[purse.asset] = have.get(purse.asset, 0) + purse.available - purse.received
            for trader in wallet.traders:
                assert min(trader.base_held, trader.quote_held) >= 0, f"account {wallet.account} holds less than 0"
                have[trader.base.asset] += trader.base_held
                have[trader.quote.asset] += trader.quote_held
        for asset, difference in have.items():
            assert not difference, f"{asset}: there is {difference} more in escrow than came from the ledger"
        assert list(self.outbox) == sorted(self.outbox), "messages out of order"


def _whole_second(time_ns: int) -> int:
    """Round up, so that wallets come due together rather than each with a record of its own."""
    return -(-time_ns // NS_PER_S) * NS_PER_S
