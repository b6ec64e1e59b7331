"""An execution stream tells an account everything once, and goes on wherever it was cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.commands import AddInstrument, AmendOrder, CancelAll, CancelOrder, PlaceOrder, SetStage
from exchange.engine.instrument import Instrument
from exchange.engine.words import OrderStatus, Stage
from exchange.gateway import executions
from exchange.gateway.executions import ExecutionHub
from exchange.gateway.replica import ShardReplica
from exchange.runtime.codec import ShardType, unpack_dump
from exchange.runtime.feed import FeedBatch, unpack_batch
from exchange.runtime.messages import pack
from exchange.v1 import trading_pb2
from tests.gateway.money import rich_shard

SYMBOLS = {"shard-0": "BTC-USDT", "shard-1": "ETH-USDT"}
ACCOUNTS = (1, 2, 3)

shards = st.sampled_from(list(SYMBOLS))
accounts = st.sampled_from(ACCOUNTS)
# A command names no order yet: an exchange names each new one, and lets the others pick among those.
unnamed, picks = st.just(""), st.integers(0, 8)
prices = st.integers(95, 105)
quantities = st.integers(1, 20)
kinds = st.sampled_from([1, 1, 2, 3])
# All fields are given: `builds` makes up those that are left out, defaults or not, and nearly every order is refused.
places = st.builds(
    PlaceOrder,
    accounts,
    unnamed,
    unnamed,
    st.integers(1, 2),
    st.just(1),
    kinds,
    prices,
    quantities,
    st.just(False),
    st.integers(0, 3),
    st.just(0),
    st.just(0),
)
amends = st.builds(
    AmendOrder,
    st.just(0),
    unnamed,
    unnamed,
    picks,
    st.one_of(st.just(0), prices),
    st.one_of(st.just(0), quantities),
    st.just(0),
    st.booleans(),
    st.booleans(),
)
cancel_alls = st.builds(CancelAll, accounts, unnamed, st.integers(0, 2), st.just(1))
cancels = st.builds(CancelOrder, st.just(0), unnamed, unnamed, picks)
# Not `one_of`, which counts a strategy once however often it is named.
mix = [*[places] * 20, *[amends] * 8, *[cancels] * 4, cancel_alls]
commands: st.SearchStrategy[Any] = st.sampled_from(mix).flatmap(lambda chosen: chosen)
steps = st.lists(st.tuples(shards, st.lists(commands, min_size=1, max_size=5)), min_size=5, max_size=20)


class Ended(Exception):
    """The call was ended with this status."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, trailers: dict[str, Any]) -> None:
        super().__init__(f"{code.name} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.trailers = trailers


class Context:
    """As much of a servicer's context as ending a call takes."""

    def time_remaining(self) -> None: ...

    async def abort(self, code: grpc.StatusCode, message: str, trailers: tuple[tuple[str, Any], ...]) -> None:
        metadata = dict(trailers)
        info = error_details_pb2.ErrorInfo()
        status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(info)
        raise Ended(code, info.reason, message, metadata)


class Exchange:
    """Two shards, their copies and a hub."""

    def __init__(self, *, maker_fee_ppm: int = 0, taker_fee_ppm: int = 0, **limits: Any) -> None:
        self.shards = {name: rich_shard(symbol[:3], "USDT") for name, symbol in SYMBOLS.items()}
        self.replicas = {name: ShardReplica(name) for name in SYMBOLS}
        self.hub = ExecutionHub(self.replicas, **limits)
        self._placed: dict[str, list[PlaceOrder]] = {name: [] for name in SYMBOLS}
        for name, symbol in SYMBOLS.items():
            fees = {"maker_fee_ppm": maker_fee_ppm, "taker_fee_ppm": taker_fee_ppm}
            instrument = Instrument(symbol, symbol[:3], "USDT", 2, 4, 6, **fees)
            self.shards[name].apply(1, [AddInstrument(instrument), SetStage(int(Stage.OPEN))])
            self.load(name)

    def load(self, name: str) -> None:
        self.replicas[name].load(unpack_dump(ShardType().dump(self.shards[name], 1)))
        self.hub.reset(name)

    def does(self, name: str, *batch: Any) -> None:
        shard = self.shards[name]
        first = shard.sequence + 1
        here = [self._named(name, command) for command in batch]
        applied = shard.apply(first, here)
        sent = pack(FeedBatch(1, first, shard.sequence, shard.time_ns, list(applied.events)))
        self.replicas[name].apply(unpack_batch(sent))

    def _named(self, name: str, command: Any) -> Any:
        placed = self._placed[name]
        command = command._replace(instrument=SYMBOLS[name])
        if isinstance(command, PlaceOrder):
            placed.append(command._replace(client_order_id=f"o{len(placed)}"))
            return placed[-1]
        if isinstance(command, AmendOrder | CancelOrder) and placed:
            order = placed[-1 - command.order_id % len(placed)]
            return command._replace(account=order.account, client_order_id=order.client_order_id, order_id=0)
        return command

    def places(self, price: int, *, side: int = 1, account: int = 1, quantity: int = 1, name: str = "shard-0") -> None:
        self.does(name, PlaceOrder(account, "", "", side, 1, 1, price, quantity))

    def stream(self, account: int, **after: int) -> AsyncIterator[trading_pb2.StreamExecutionsResponse]:
        sequences = {name.replace("_", "-"): sequence for name, sequence in after.items()}
        return self.hub.stream(account, sequences, cast("grpc.aio.ServicerContext[Any, Any]", Context()))


async def read(stream: AsyncIterator[Any], count: int) -> list[Any]:
    """Read executions until there are so many; the messages must come at once."""
    found: list[Any] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += (await anext(stream)).executions
    assert len(found) == count
    return found


async def waits(stream: AsyncIterator[Any]) -> bool:
    """Whether the stream has nothing to say now. It is of no use afterwards."""
    task = asyncio.ensure_future(anext(stream))
    for _ in range(3):
        await asyncio.sleep(0)
    return not task.done() and task.cancel()


def by_shard(found: list[Any]) -> dict[str, list[Any]]:
    return {name: [execution for execution in found if execution.shard == name] for name in SYMBOLS}


@given(steps)
@settings(max_examples=100, deadline=None)
async def test_executions_tell_what_became_of_every_order(batches: list[tuple[str, list[Any]]]) -> None:
    exchange = Exchange()
    streams = {account: exchange.stream(account) for account in ACCOUNTS}
    for stream in streams.values():
        assert dict((await anext(stream)).start_sequences) == {"shard-0": 2, "shard-1": 2}
    for name, batch in batches:
        exchange.does(name, *batch)
    fills: dict[tuple[str, int], list[Any]] = {}
    for account, stream in streams.items():
        latest: dict[tuple[str, int], Any] = {}
        while not await waits_or_take(stream, latest, fills):
            pass
        for name, shard in exchange.shards.items():
            entered = shard.remembered.of(account)
            for order in (o for o in entered if not o.reject_reason):
                last = latest.pop((name, order.order_id))
                assert last.client_order_id == order.request.client_order_id
                assert (last.price, last.quantity, last.side) == (order.price, order.quantity, order.request.side)
                assert last.filled_quantity == order.quantity - order.open
                assert last.open_quantity == (order.open if order.level is not None else 0)
                assert last.close_reason == order.close_reason
                assert (last.status == OrderStatus.OPEN) == (order.level is not None)
        assert not latest, "executions of orders that never were"
    for sides in fills.values():
        maker, taker = sorted(sides, key=lambda fill: int(fill.liquidity))
        assert (maker.liquidity, taker.liquidity) == (1, 2)
        assert (maker.trade_price, maker.trade_quantity) == (taker.trade_price, taker.trade_quantity)
        assert {maker.side, taker.side} == {1, 2}


async def waits_or_take(stream: Any, latest: dict[Any, Any], fills: dict[Any, list[Any]]) -> bool:
    """Take one message if there is one; return whether there was none."""
    task = asyncio.ensure_future(anext(stream))
    for _ in range(3):
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        return True
    for execution in task.result().executions:
        latest[execution.shard, execution.order_id] = execution
        if execution.trade_id:
            fills.setdefault((execution.shard, execution.trade_id), []).append(execution)
    return False


@given(steps, st.integers(0, 20))
@settings(max_examples=60, deadline=None)
async def test_a_resume_at_any_point_gives_exactly_what_follows(batches: list[Any], resumed_at: int) -> None:
    exchange = Exchange()
    live = exchange.stream(1)
    await anext(live)
    for name, batch in batches[:resumed_at]:
        exchange.does(name, *batch)
    resumed = [
        (first, second, exchange.stream(1, shard_0=first, shard_1=second))
        for first in range(2, exchange.shards["shard-0"].sequence + 1)
        for second in (2, exchange.shards["shard-1"].sequence)
    ]
    for first, second, stream in resumed:
        assert dict((await anext(stream)).start_sequences) == {"shard-0": first, "shard-1": second}
    for name, batch in batches[resumed_at:]:
        exchange.does(name, *batch)
    exchange.places(50)
    everything: list[Any] = []
    while not everything or everything[-1].sequence != exchange.shards["shard-0"].sequence:
        everything += (await anext(live)).executions
    whole = by_shard(everything)
    for first, second, stream in resumed:
        expected = {
            "shard-0": [execution for execution in whole["shard-0"] if execution.sequence > first],
            "shard-1": [execution for execution in whole["shard-1"] if execution.sequence > second],
        }
        assert by_shard(await read(stream, sum(map(len, expected.values())))) == expected
        assert await waits(stream)


async def test_a_shard_that_is_not_named_starts_with_what_happens_next() -> None:
    exchange = Exchange()
    exchange.places(100)
    stream = exchange.stream(1)
    assert (await anext(stream)).start_sequences["shard-0"] == 3
    exchange.places(101)
    (execution,) = await read(stream, 1)
    assert execution.sequence == 4


async def test_an_account_sees_its_own_side_of_a_trade_alone() -> None:
    exchange = Exchange()
    exchange.places(100, account=1, quantity=5)
    stream = exchange.stream(1, shard_0=2)
    await anext(stream)
    exchange.places(99, side=2, account=2, quantity=2)
    new, trade = await read(stream, 2)
    assert (new.type, new.open_quantity) == (trading_pb2.EXECUTION_TYPE_NEW, 5)
    assert (trade.type, trade.liquidity) == (trading_pb2.EXECUTION_TYPE_TRADE, trading_pb2.LIQUIDITY_MAKER)
    assert (trade.trade_price, trade.trade_quantity, trade.open_quantity) == (100, 2, 3)
    assert await waits(stream)


async def test_each_side_of_a_trade_is_told_its_own_fee_and_a_rebate_as_less_than_nothing() -> None:
    exchange = Exchange(maker_fee_ppm=-200, taker_fee_ppm=1_000)
    exchange.places(100, account=3, quantity=50)
    streams = {account: exchange.stream(account, shard_0=3) for account in (1, 2, 3)}
    for stream in streams.values():
        await anext(stream)
    exchange.places(100, side=2, account=2, quantity=50)
    (made,) = await read(streams[3], 1)
    accepted, taken = await read(streams[2], 2)
    # 0.005 at 1.00.
    assert (made.fee, made.fee_asset) == ("-0.000001", "USDT")
    assert (taken.fee, taken.fee_asset) == ("0.000005", "USDT")
    assert (accepted.fee, accepted.fee_asset) == ("", "")
    assert await waits(streams[1]), "what the house gets is no execution of its"


async def test_a_resume_for_more_than_is_held_is_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "CHUNK_MIN", 4)
    exchange = Exchange(kept_per_shard=10)
    for n in range(40):
        exchange.places(50 + n)
    last = exchange.shards["shard-0"].sequence
    served: list[int] = []
    refused: list[int] = []
    answers: set[tuple[grpc.StatusCode, str]] = set()
    for after in range(2, last + 1):
        stream = exchange.stream(1, shard_0=after)
        try:
            await anext(stream)
        except Ended as ended:
            refused.append(after)
            answers.add((ended.code, ended.reason))
        else:
            served.append(after)
            if after < last:
                found = await read(stream, last - after)
                assert [execution.sequence for execution in found] == list(range(after + 1, last + 1))
    assert 7 <= len(served) <= 12
    assert refused + served == list(range(2, last + 1)), "what is held has no holes"
    assert answers == {(grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD")}


async def test_a_resume_after_a_sequence_that_this_gateway_has_yet_to_reach_waits_for_it() -> None:
    exchange = Exchange()
    stream = exchange.stream(1, shard_0=4)
    assert (await anext(stream)).start_sequences["shard-0"] == 4
    for n in range(3):
        exchange.places(100 + n)
    (execution,) = await read(stream, 1)
    assert execution.sequence == 5


@pytest.mark.parametrize(
    ("after", "code", "reason"),
    [
        ({"shard_7": 1}, grpc.StatusCode.INVALID_ARGUMENT, "SHARD_UNKNOWN"),
        ({"shard_0": 10**9}, grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD"),
        ({"shard_0": 1}, grpc.StatusCode.OUT_OF_RANGE, "NOT_HELD"),
    ],
)
async def test_a_resume_that_makes_no_sense_is_refused(after: Any, code: grpc.StatusCode, reason: str) -> None:
    with pytest.raises(Ended) as ended:
        await anext(Exchange().stream(1, **after))
    assert (ended.value.code, ended.value.reason) == (code, reason)


async def test_a_shard_without_a_copy_is_unavailable_to_a_resume_and_left_out_of_a_start() -> None:
    replicas = {"shard-0": ShardReplica("shard-0")}
    hub = ExecutionHub(replicas)
    with pytest.raises(Ended) as ended:
        await anext(hub.stream(1, {"shard-0": 5}, Context()))
    assert ended.value.code is grpc.StatusCode.UNAVAILABLE
    assert ended.value.trailers["grpc-retry-pushback-ms"] == "500"
    assert not (await anext(hub.stream(1, {}, Context()))).start_sequences


async def test_a_copy_loaded_anew_ends_the_streams_because_something_may_be_missing() -> None:
    exchange = Exchange()
    stream = exchange.stream(1)
    await anext(stream)
    exchange.shards["shard-1"].apply(9, [SetStage(int(Stage.HALTED))])
    exchange.load("shard-1")
    with pytest.raises(Ended, match="shard-1 was loaded anew") as ended:
        await anext(stream)
    assert (ended.value.code, ended.value.reason) == (grpc.StatusCode.OUT_OF_RANGE, "GAP")


async def test_a_slow_reader_is_ended_and_resumes_without_a_loss() -> None:
    exchange = Exchange(pending_max=5)
    slow, other = exchange.stream(1), exchange.stream(2)
    await anext(slow)
    await anext(other)
    exchange.places(100)
    seen = await read(slow, 1)
    for n in range(8):
        exchange.places(50 + n)
    exchange.places(60, account=2)
    with pytest.raises(Ended, match="more than 5") as ended:
        await anext(slow)
    assert (ended.value.code, ended.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER")
    assert "grpc-retry-pushback-ms" in ended.value.trailers
    resumed = exchange.stream(1, shard_0=seen[-1].sequence)
    await anext(resumed)
    assert [execution.sequence for execution in await read(resumed, 8)] == list(range(4, 12))
    assert len(await read(other, 1)) == 1


async def test_what_waits_for_a_slow_reader_is_let_go_at_once() -> None:
    exchange = Exchange(pending_max=5)
    stream = exchange.stream(1)
    await anext(stream)
    for n in range(20):
        exchange.places(50 + n)
    (reader,) = exchange.hub._readers[1]
    assert len(reader.pending) == 0


async def test_a_message_ends_with_a_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "EXECUTIONS_PER_MESSAGE", 4)
    exchange = Exchange()
    live = exchange.stream(1)
    await anext(live)
    for _ in range(3):
        exchange.places(100)
    for _ in range(7):
        exchange.places(101, account=2, side=2)
    exchange.places(101, quantity=7)
    exchange.places(90)
    resumed = exchange.stream(1, shard_0=2)
    await anext(resumed)
    for stream in (live, resumed):
        sizes = [len((await anext(stream)).executions) for _ in range(2)]
        assert sizes == [11, 1], "3 new orders and one with its 7 trades, then the last one"


async def test_a_command_larger_than_a_message_may_be_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "EXECUTIONS_PER_MESSAGE", 2)
    monkeypatch.setattr(executions, "EXECUTIONS_PER_COMMAND_MAX", 5)
    exchange = Exchange()
    for n in range(12):
        exchange.places(50 + n)
    last = exchange.shards["shard-0"].sequence
    live = exchange.stream(1)
    await anext(live)
    exchange.does("shard-0", CancelAll(1))
    resumed = exchange.stream(1, shard_0=last)
    await anext(resumed)
    for stream in (live, resumed):
        assert [len((await anext(stream)).executions) for _ in range(3)] == [5, 5, 2]


async def test_a_stream_that_is_closed_leaves_nothing_behind() -> None:
    exchange = Exchange()
    stream = exchange.stream(1)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert not exchange.hub._readers
