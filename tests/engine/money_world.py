"""A ledger and two shards, the messages under way between them, and beside each machine one that never crashed.

Messages wait until the test delivers them: in any order, more than once, or never. What a carrier would send anew after
a failure, `resend` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from tests.engine.money_checks import check_money
from tests.engine.planted import Engine

MS = 1_000_000
S = 1_000 * MS
START_NS = 1_700_000_000 * S
HOUSE = 1
ACCOUNTS = (1, 2, 3, 4)
SHARDS = ("shard-0", "shard-1")
LEDGER = "ledger"
SCALES = {"USDT": 3, "BTC": 2, "ETH": 2}
# Symbol, base, quote, scales of price, quantity and quote, tick, lot, fees of maker and taker; by shard.
MARKETS = {
    "BTC-USDT": ("shard-0", ("BTC", "USDT", 0, 0, 3), {"maker_fee_ppm": 1_001, "taker_fee_ppm": 2_503}),
    "ETH-USDT": ("shard-1", ("ETH", "USDT", 1, 1, 3), {"maker_fee_ppm": -703, "taker_fee_ppm": 1_507}),
    "ETH-BTC": ("shard-1", ("ETH", "BTC", 1, 1, 2), {"maker_fee_ppm": 20_011, "taker_fee_ppm": 9_973}),
}
SYMBOLS = tuple(MARKETS)
IN_FLIGHT_MAX = 100
"""So many are under way that sending all again brings nothing new."""
_OPEN = 5
_ESCROW, _ANSWER, _RECALL, _SETTLED = 5, 6, 7, 8
_SHARD_ESCROW, _RESOLVED = 7, 8
_PENDING = 5


class World:
    """`up` and `down` are the messages under way, by shard; `done` what became of orders, by account and name."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.time_ns = START_NS
        self.machines: dict[str, Any] = {LEDGER: engine.ledger.Ledger()}
        self.machines |= {shard: engine.shard.Shard() for shard in SHARDS}
        self.unbroken: dict[str, Any] = {LEDGER: engine.ledger.Ledger()}
        self.unbroken |= {shard: engine.shard.Shard() for shard in SHARDS}
        self.up: dict[str, list[Any]] = {shard: [] for shard in SHARDS}
        self.down: dict[str, list[Any]] = {shard: [] for shard in SHARDS}
        self.supply: Counter[str] = Counter()
        """Deposits less withdrawals, by asset."""
        self.moved: dict[str, dict[tuple[str, int], tuple[int, str, int]]] = {"ledger": {}, "shard": {}}
        """What each side says that it has moved: by shard and message, account, asset and change of the shard."""
        self.recalls_answered: dict[tuple[str, int], int] = {}
        self.done: dict[tuple[int, str], Any] = {}
        self.waiting: dict[int, Any] = {}
        self._noticed = dict.fromkeys(SHARDS, 0)
        self._names = 0
        words = engine.words
        self.tell_ledger(*[words.CreateAccount(f"account-{n}") for n in ACCOUNTS])
        self.tell_ledger(*[words.CreateAsset(symbol, scale) for symbol, scale in SCALES.items()])
        for symbol, (shard, (base, quote, *scales), fees) in MARKETS.items():
            instrument = engine.instrument.Instrument(symbol, base, quote, *scales, base_scale=2, **fees)
            self.tell_shard(shard, engine.commands.AddInstrument(instrument))
        for shard in SHARDS:
            self.tell_shard(shard, engine.commands.SetStage(_OPEN))

    @property
    def ledger(self) -> Any:
        return self.machines[LEDGER]

    def new_name(self) -> str:
        self._names += 1
        return f"n{self._names}"

    # ---------------------------------------------------------------- records

    def _apply(self, name: str, commands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Apply a record to a machine and to the one beside it, which must do the same."""
        machine, unbroken = self.machines[name], self.unbroken[name]
        results, events = machine.apply(self.time_ns, commands)
        beside = unbroken.apply(self.time_ns, commands)
        assert (results, events) == tuple(beside), f"{name}: does not do what one does that was never restored"
        machine.validate()
        if name == LEDGER:
            same = machine.state() == unbroken.state()
        else:
            state_of = self.engine.state.state_of
            same = state_of(machine) == state_of(unbroken)
        assert same, f"{name}: is not in the state of one that was never restored"
        return results, events

    def tell_ledger(self, *commands: Any) -> list[Any]:
        """Let the ledger apply a record; what it says gets under way."""
        results, events = self._apply(LEDGER, commands)
        for command, result in zip(commands, results, strict=True):
            entry = result.entry
            if entry is not None and entry.type in (1, 2) and not result.duplicate:
                self.supply[entry.asset] += entry.change
            if result.waits:
                self.waiting[result.waits] = command
            answer = result.answer
            if answer is not None and answer.status:
                self.down[command.shard].append(self.engine.channel.AnswerFunds(*answer))
        for event in events:
            if event.kind == _ESCROW:
                shard, n, account, asset, change, _ = event.body
                self._note("ledger", shard, n, (account, asset, change))
            elif event.kind == _ANSWER:
                self.down[event.body[0]].append(self.engine.channel.AnswerFunds(*event.body[1:]))
            elif event.kind == _RECALL:
                self.down[event.body[0]].append(self.engine.channel.RecallFunds(*event.body[1:]))
            elif event.kind == _SETTLED:
                n, refusal, entry = event.body
                del self.waiting[n]
                if not refusal and entry.type == 2:
                    self.supply[entry.asset] += entry.change
        self.check()
        return results

    def tell_shard(self, shard: str, *commands: Any) -> list[Any]:
        """Let a shard apply a record; its new messages get under way."""
        results, events = self._apply(shard, commands)
        for event in events:
            if event[0] == _SHARD_ESCROW:
                _, _, account, asset, change, n = event
                self._note("shard", shard, n, (account, asset, change))
            elif event[0] == _RESOLVED:
                _, _, _, account, _, name, *rest = event
                self.done[account, name] = rest
        funds = self.machines[shard].funds
        for n, message in list(funds.outbox.items()):
            if n > self._noticed[shard]:
                self._noticed[shard] = n
                recall = getattr(message, "recall", 0)
                if recall:
                    before = self.recalls_answered.setdefault((shard, recall), n)
                    assert before == n, f"{shard}: answers recall {recall} with message {before} and {n}"
                self._send_up(shard, message)
        self.check()
        return results

    def _note(self, side: str, shard: str, n: int, move: tuple[int, str, int]) -> None:
        moved = self.moved[side]
        assert (shard, n) not in moved, f"{side}: message {n} of {shard} moved {moved[shard, n]} and again {move}"
        moved[shard, n] = move

    def check(self) -> None:
        check_money(self.ledger, {shard: self.machines[shard] for shard in SHARDS}, self.supply, self.moved)

    # ---------------------------------------------------------------- messages

    def _send_up(self, shard: str, message: Any) -> None:
        channel, low = self.engine.channel, self.machines[shard].funds.low
        kind = channel.AskFunds if isinstance(message, channel.Ask) else channel.ReturnFunds
        self.up[shard].append(kind(shard, low, *message))

    def resend(self, shard: str) -> None:
        """Send all that is open on both sides, as a carrier does that starts."""
        channel, grants = self.engine.channel, self.ledger.grants
        for message in self.machines[shard].funds.outbox.values():
            self._send_up(shard, message)
        for answer in grants.answers_to(shard):
            self.down[shard].append(channel.AnswerFunds(*answer))
        for recall in grants.open_recalls(shard):
            self.down[shard].append(recall)

    def deliver(self, shard: str, *, is_up: bool, first: int, count: int, keep: bool = False) -> None:
        """Hand over some messages as one record; with `keep` they come once more."""
        queue = (self.up if is_up else self.down)[shard]
        if queue:
            first %= len(queue)
            messages = queue[first : first + count]
            if not keep:
                del queue[first : first + count]
            if is_up:
                self.tell_ledger(*messages)
            else:
                self.tell_shard(shard, *messages)

    def drop(self, shard: str, *, is_up: bool, first: int, count: int) -> None:
        queue = (self.up if is_up else self.down)[shard]
        if queue:
            first %= len(queue)
            del queue[first : first + count]

    def crash(self, name: str) -> None:
        """Have a machine come back from what it has journaled, and what was under way to and from it be lost."""
        copy = self.engine.copy_of_ledger if name == LEDGER else self.engine.copy_of_shard
        self.machines[name] = copy(self.machines[name])
        self.machines[name].validate()
        assert self.state_of(self.machines[name]) == self.state_of(self.unbroken[name]), f"{name}: another state"
        for shard in SHARDS if name == LEDGER else (name,):
            self.up[shard].clear()
            self.down[shard].clear()
            self.resend(shard)
        self.check()

    def state_of(self, machine: Any) -> Any:
        is_ledger = isinstance(machine, self.engine.ledger.Ledger)
        return machine.state() if is_ledger else self.engine.state.state_of(machine)

    # ---------------------------------------------------------------- time

    def tick(self, name: str) -> None:
        """Let a machine do what is due."""
        due_ns = self.machines[name].next_timer_ns()
        if due_ns is not None and due_ns <= self.time_ns:
            if name == LEDGER:
                self.tell_ledger(self.engine.words.EndWaits())
            else:
                self.tell_shard(name, self.engine.commands.Tick())

    def pass_time(self, ns: int) -> None:
        """Go to a later time by way of all that is due until then."""
        end_ns = self.time_ns + ns
        while True:
            due = [(due_ns, name) for name, m in self.machines.items() if (due_ns := m.next_timer_ns()) is not None]
            due_ns, name = min(due, default=(end_ns + 1, ""))
            if due_ns > end_ns:
                break
            self.time_ns = max(self.time_ns, due_ns)
            self.tick(name)
        self.time_ns = end_ns

    # ---------------------------------------------------------------- quiet

    def flush(self, random: Random) -> None:
        """Deliver all that is under way: in order on each way, the ways by turns as it comes."""
        while True:
            ways = [(shard, is_up) for is_up in (True, False) for shard in SHARDS if self.way(shard, is_up=is_up)]
            if not ways:
                return
            shard, is_up = random.choice(ways)
            self.deliver(shard, is_up=is_up, first=0, count=random.randint(1, 3))

    def way(self, shard: str, *, is_up: bool) -> list[Any]:
        return (self.up if is_up else self.down)[shard]

    def settle(self, random: Random) -> None:
        """Let everything come to its end, with nothing lost any more; then nothing may be open."""
        for _ in range(3):
            for shard in SHARDS:
                self.resend(shard)
            self.flush(random)
            self.pass_time(S)
        self.flush(random)
        grants = self.ledger.grants
        assert not grants.lines, f"somebody waits still: {list(grants.lines)}"
        assert not self.ledger.moves, "a movement waits still"
        assert not self.waiting, f"nobody learned what became of {self.waiting}"
        for shard in SHARDS:
            machine = self.machines[shard]
            assert not machine.funds.outbox, f"{shard}: has open messages {list(machine.funds.outbox.values())}"
            assert not machine.parked, f"{shard}: commands wait still"
            assert not grants.open_recalls(shard), f"{shard}: owes answers to {grants.open_recalls(shard)}"
        assert self.moved["ledger"] == self.moved["shard"], "the sides do not agree on what was moved"

    def go_idle(self, random: Random) -> None:
        """Let so much time pass that free money goes back, but for the fees."""
        for _ in range(30):
            self.pass_time(S)
            self.flush(random)
        for shard in SHARDS:
            for account, wallet in self.machines[shard].funds.wallets.items():
                for asset, purse in wallet.purses.items():
                    left = purse.available if account != HOUSE else 0
                    assert not left, f"{shard}: {left} {asset} of account {account} still lies idle"

    # ---------------------------------------------------------------- orders

    def free(self, account: int, asset: str) -> int:
        """Return what an account has and has not bound, wherever it is; when nothing is under way."""
        free = self.ledger.balances.available.get(account, {}).get(asset, 0)
        for shard in SHARDS:
            wallet = self.machines[shard].funds.wallets.get(account)
            if wallet is not None and asset in wallet.purses:
                free += wallet.purses[asset].available
        return int(free)

    def open_orders(self) -> list[tuple[int, str, str]]:
        """Return account, instrument and name of the orders that rest, and of those that wait."""
        requests = []
        for shard in SHARDS:
            machine = self.machines[shard]
            requests += [order.request for book in machine.books.values() for order in book.orders()]
            requests += [parked.order.request for parked in machine.parked.values() if parked.order is not None]
        return [(request.account, request.instrument, request.client_order_id) for request in requests]

    def place(self, account: int, symbol: str, side: int, price: int, quantity: int, **more: Any) -> str:
        """Enter an order under a new name, which is returned; what became of it stands in `done`."""
        name = self.new_name()
        kind, time_in_force = more.pop("type", 1), more.pop("time_in_force", 1)
        command = self.engine.commands.PlaceOrder(
            account, name, symbol, side, kind, time_in_force, price, quantity, **more
        )
        (result,) = self.tell_shard(MARKETS[symbol][0], command)
        if result.status != _PENDING:
            self.done[account, name] = result[2:8]
        return name

    def reject_reason(self, account: int, name: str) -> int:
        """Return why an order was refused, 0 if it was not; it must have come to its end."""
        return int(self.done[account, name][4])
