"""Kill -9 of ledger or shard at every message between them: nothing is lost or doubled, and all goes on by itself.

Real processes with real journals; the driver stands between them and kills one at the message it is told.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from exchange.engine.commands import AddInstrument, CancelOrder, PlaceOrder, SetStage
from exchange.engine.events import EventKind
from exchange.engine.instrument import Instrument
from exchange.engine.ledger_words import CreateAccount, CreateAsset, Deposit, LedgerEventKind, Withdraw
from exchange.engine.words import OrderStatus, RejectReason, Stage
from exchange.runtime.messages import pack, unpack
from exchange.runtime.recovery import recover
from exchange.runtime.rows import unpack_ledger_result
from exchange.runtime.storage import KINDS, open_storage
from tests.engine.money_checks import check_money
from tests.runtime.transfer_driver import LEDGER, SHARDS, Driver, KillPoint

S = 1_000_000_000
ALICE, BOB = 2, 3
BUY, SELL = 1, 2
MARKETS = {
    "shard-0": Instrument("BTC-USDT", "BTC", "USDT", 0, 0, 0, maker_fee_ppm=1_000, taker_fee_ppm=2_000),
    "shard-1": Instrument("ETH-USDT", "ETH", "USDT", 0, 0, 0, maker_fee_ppm=1_000, taker_fee_ppm=2_000),
}
SAMPLE_POINTS = 24
_RESOLVED, _SETTLED = int(EventKind.RESOLVED), int(LedgerEventKind.SETTLED)
_PENDING, _OPEN, _FILLED, _CANCELLED = (
    int(s) for s in (OrderStatus.PENDING_FUNDS, OrderStatus.OPEN, OrderStatus.FILLED, OrderStatus.CANCELLED)
)


class Client:
    """Trades through the driver, asking again until it knows. `known`: what it was told of its orders at last."""

    def __init__(self, driver: Driver) -> None:
        self.known: dict[tuple[str, int, str], int] = {}
        self._driver = driver

    async def place(self, shard: str, account: int, name: str, side: int, price: int, quantity: int) -> int:
        """Enter an order, again as long as it is refused for a passing reason; return its status."""
        command = PlaceOrder(account, name, MARKETS[shard].symbol, side, 1, 1, price, quantity)
        while True:
            (row,) = unpack(await self._driver.submit(shard, [command]))
            sequence, order_id, status, reason = row[0], row[2], row[3], row[6]
            if status == _PENDING:
                # Of a repeat, the order is the first one.
                status, reason = await self._resolved(shard, order_id or sequence)
            if not reason:
                self.known[shard, account, name] = status
                return int(status)
            assert RejectReason(reason).is_passing, RejectReason(reason)
            # The shard tells when it is open again.
            await self._driver.opened(shard)

    async def _resolved(self, shard: str, order_id: int) -> tuple[int, int]:
        sequence = 0
        while True:
            sequence, events = await self._driver.feed(shard, sequence)
            for row in events:
                if row[0] == _RESOLVED and row[4] == order_id:
                    return row[7], row[10]

    async def cancel(self, shard: str, account: int, name: str) -> None:
        await self._driver.submit(shard, [CancelOrder(account, MARKETS[shard].symbol, name)])
        self.known[shard, account, name] = _CANCELLED

    async def withdraw(self, account: int, amount: int, reference: str) -> None:
        result = unpack_ledger_result(await self._driver.submit(LEDGER, [Withdraw(account, "USDT", amount, reference)]))
        assert not result.refusal
        sequence = 0
        while result.waits:
            sequence, events = await self._driver.feed(LEDGER, sequence)
            for kind, _, body in events:
                if kind == _SETTLED and body[0] == result.waits:
                    assert body[1] == 0, body
                    return


async def quiet(driver: Driver) -> None:
    """Wait until neither side has anything open: it comes to that by itself."""
    for shard in SHARDS:
        while True:
            sequence, _, _, parked, outbox, _ = unpack(await driver.call(shard, "query", pack(("money",))))
            if not outbox and not parked:
                break
            await driver.feed(shard, sequence)
        while True:
            sequence, _, recalls = unpack(await driver.call(LEDGER, "query", pack(("channel", shard))))
            if not recalls:
                break
            await driver.feed(LEDGER, sequence)


async def trade(driver: Driver) -> Client:
    """The scenario: grants, a share that goes along, a recall between shards, one for a withdrawal, idle returns."""
    client = Client(driver)
    names = ("house", "alice", "bob")
    await driver.submit(
        LEDGER, [*map(CreateAccount, names), *(CreateAsset(asset, 0) for asset in ("USDT", "BTC", "ETH"))]
    )
    await driver.submit(LEDGER, [Deposit(ALICE, "USDT", 1_000, "d1"), Deposit(BOB, "BTC", 10, "d2")])
    for shard, instrument in MARKETS.items():
        await driver.submit(shard, [AddInstrument(instrument), SetStage(int(Stage.OPEN))])
    await driver.carry()
    assert await client.place("shard-0", ALICE, "a", BUY, 100, 4) == _OPEN
    assert await client.place("shard-0", BOB, "b", SELL, 100, 1) == _FILLED
    client.known["shard-0", ALICE, "a"] = _OPEN
    await quiet(driver)
    # There is too little in the ledger: what is free in shard-0 comes back.
    assert await client.place("shard-1", ALICE, "c", BUY, 50, 10) == _OPEN
    await client.withdraw(ALICE, 20, "w")
    await client.cancel("shard-0", ALICE, "a")
    await quiet(driver)
    for _ in range(3):
        await driver.pass_time(10 * S)
        await quiet(driver)
    return client


async def run(directory: Path, kill_at: KillPoint | None) -> Driver:
    """Run the scenario, kill everything, and look at what the journals say."""
    async with asyncio.timeout(60):
        async with Driver(directory, kill_at) as driver:
            client = await trade(driver)
    machines: dict[str, Any] = {}
    for name in (LEDGER, *SHARDS):
        machines[name] = recover(KINDS[name.partition("-")[0]], *open_storage(directory, name)).machine
        machines[name].validate()
    ledger, shards = machines[LEDGER], {shard: machines[shard] for shard in SHARDS}
    supply = Counter({"USDT": 980, "BTC": 10})
    check_money(ledger, shards, supply, {"ledger": {}, "shard": {}})
    grants = ledger.grants
    assert not grants.lines
    assert not ledger.moves
    for name, shard in shards.items():
        assert not grants.open_recalls(name)
        assert not shard.parked
        assert not shard.funds.outbox
        out = {(a, asset): n for a, assets in grants.out[name].items() for asset, n in assets.items() if n}
        purses = [purse for wallet in shard.funds.wallets.values() for purse in wallet.purses.values()]
        assert out == {(p.account, p.asset): p.received for p in purses if p.received}, "the sides do not agree"
        idle = {(p.account, p.asset): p.available for p in purses if p.available and p.account != 1}
        assert not idle, f"{name}: {idle} did not go back"
    for (name, account, order), status in client.known.items():
        found = shards[name].find(account, MARKETS[name].symbol, order, 0)
        assert found is not None, f"{order} is lost"
        assert found.status == status, f"{order}: expected {OrderStatus(status).name}, was {found.status.name}"
    return driver


def kill_points(directory: Path) -> list[KillPoint]:
    """Return all points of the scenario, from a run in which nobody is killed."""
    driver = asyncio.run(run(directory, None))
    return [
        KillPoint(message, is_after, victim)
        for message in driver.seen
        for is_after in (False, True)
        for victim in (LEDGER, message.shard)
    ]


@contextmanager
def short_directory() -> Iterator[Path]:
    """The path of a Unix socket has at most 107 bytes."""
    with TemporaryDirectory(prefix="ek-") as directory:
        yield Path(directory)


def run_all(points: list[KillPoint]) -> int:
    """Run the scenario with a kill at each point; return how many of them came."""
    killed = 0
    for point in points:
        with short_directory() as directory:
            try:
                killed += asyncio.run(run(directory, point)).killed
            except BaseException as error:
                error.add_note(f"at {point}")
                raise
    return killed


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_when_ledger_or_shard_is_killed_at_a_message() -> None:
    with short_directory() as directory:
        points = kill_points(directory)
    # From every method, both directions, before and after, both victims; at both ends of the scenario and between.
    sample = points[:: max(len(points) // SAMPLE_POINTS, 1) | 1]
    assert run_all(sample) >= len(sample) // 2


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_nothing_is_lost_or_doubled_when_ledger_or_shard_is_killed_at_any_message() -> None:
    started_s = time.monotonic()
    with short_directory() as directory:
        points = kill_points(directory)
    killed = run_all(points)
    print(f"{len(points)} kill points, {killed} reached, {time.monotonic() - started_s:.0f} s")  # noqa: T201
    # A message may come sooner or later than in the first run, or together with another.
    assert killed > len(points) * 3 // 4
