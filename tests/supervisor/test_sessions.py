"""What streams with cancel-on-disconnect placed is cancelled when their gateway dies, whatever else is away then."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from exchange.config import ExchangeConfig
from exchange.engine.commands import AddInstrument, CancelSessions, SetStage, Tick
from exchange.engine.instrument import Instrument
from exchange.engine.words import CloseReason, Stage
from exchange.runtime.messages import LinkBatch, ReplyStatus, Segment, SegmentKind, pack, unpack_replies
from exchange.runtime.rows import rows_segment
from exchange.supervisor.sessions import SESSION_BITS, cancel_ended
from exchange.supervisor.shards import SESSIONS_RETRY_S
from exchange.v1 import trading_pb2, types_pb2
from tests.runtime.money import BUY, grants
from tests.supervisor.cluster_in_memory import ClusterInMemory

SYMBOLS = {"shard-0": "BTC-USDT", "shard-1": "ETH-USDT"}
_numbers = count(1)


async def new_cluster(directory: Path) -> ClusterInMemory:
    cluster = ClusterInMemory(directory, ExchangeConfig(port=0, shards=2, gateways=2, standbys=False))
    await cluster.begin()
    for shard, symbol in SYMBOLS.items():
        base = symbol.partition("-")[0]
        await cluster.reconciler.operator.create_instrument(Instrument(symbol, base, "USDT", 2, 4, 6), shard)
        batch = pack(LinkBatch("ledger", 1, 1, [rows_segment(grants(symbol, (1, BUY)))]))
        await cluster.processes[shard].submit(batch)
    return cluster


async def place(cluster: ClusterInMemory, shard: str, name: str, gateway: str | None) -> None:
    """Place a resting order in a session of a gateway, or in none."""
    session = (cluster.reconciler.components[gateway].incarnation << SESSION_BITS) + 1 if gateway else 0
    order = trading_pb2.PlaceOrderRequest(
        instrument=SYMBOLS[shard],
        client_order_id=name,
        side=types_pb2.SIDE_BUY,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=100,
        quantity=5,
    )
    data = trading_pb2.TradeRequest(commands=[trading_pb2.Command(place=order)]).SerializeToString()
    segment = Segment(int(SegmentKind.TRADE), 1, session, 1_000, data)
    batch = pack(LinkBatch("test", 1, next(_numbers), [segment]))
    (reply,) = unpack_replies(await cluster.processes[shard].submit(batch))
    assert reply.status == ReplyStatus.DONE


def found(cluster: ClusterInMemory, shard: str, name: str) -> Any:
    return cluster.processes[shard].host.machine.find(1, SYMBOLS[shard], name, 0)


def is_cancelled(cluster: ClusterInMemory, shard: str, name: str) -> bool:
    return bool(found(cluster, shard, name).close_reason == CloseReason.DISCONNECTED)


async def place_everywhere(cluster: ClusterInMemory) -> None:
    for shard in SYMBOLS:
        await place(cluster, shard, "mortal", "gateway-0")
        await place(cluster, shard, "of-the-other-gateway", "gateway-1")
        await place(cluster, shard, "lasting", None)


def check_others(cluster: ClusterInMemory) -> None:
    for shard in SYMBOLS:
        assert found(cluster, shard, "of-the-other-gateway").close_reason == 0
        assert found(cluster, shard, "lasting").close_reason == 0


async def test_sessions_of_a_dead_gateway_are_cancelled_before_it_is_back(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await place_everywhere(cluster)
    cluster.refused.add("gateway-0")
    await cluster.lose("gateway-0")
    await cluster.until(lambda: all(is_cancelled(cluster, shard, "mortal") for shard in SYMBOLS))
    check_others(cluster)
    await cluster.end()


async def test_a_shard_that_was_away_cancels_them_before_it_opens(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await place_everywhere(cluster)
    cluster.refused.add("shard-1")
    await cluster.lose("shard-1")
    await cluster.lose("gateway-0")
    # The gateway dies once more, so that two incarnations of it have ended.
    await cluster.until(lambda: cluster.reconciler.components["gateway-0"].state.name == "UP")
    await cluster.lose("gateway-0")
    await cluster.until(lambda: is_cancelled(cluster, "shard-0", "mortal"))
    cluster.refused.clear()
    await cluster.until(lambda: cluster.reconciler.is_ready)
    assert is_cancelled(cluster, "shard-1", "mortal")
    commands = cluster.journaled("shard-1")
    start = max(i for i, c in enumerate(commands) if c == SetStage(int(Stage.CANCEL_ONLY), 0, "start"))
    opened = next(i for i in range(start + 1, len(commands)) if isinstance(commands[i], SetStage))
    added, *cancels = (command for command in commands[start + 1 : opened] if command != Tick())
    assert isinstance(added, AddInstrument)
    assert cancels
    assert all(isinstance(cancel, CancelSessions) for cancel in cancels)
    assert commands[opened].stage == Stage.OPEN
    check_others(cluster)
    await cluster.end()


async def test_a_shard_that_does_not_take_it_is_asked_again_at_a_pace(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await place_everywhere(cluster)
    shard = cluster.processes["shard-1"]
    shard.deaf = True
    asked, began_s = shard.batches, cluster.now_s
    await cluster.lose("gateway-0")
    await cluster.until(lambda: shard.batches >= asked + 4)
    assert cluster.now_s - began_s >= 3 * SESSIONS_RETRY_S
    assert not is_cancelled(cluster, "shard-1", "mortal")
    shard.deaf = False
    await cluster.until(lambda: is_cancelled(cluster, "shard-1", "mortal"))
    check_others(cluster)
    # Once it is journaled, that is that.
    asked = shard.batches
    end_s = cluster.now_s + 4 * SESSIONS_RETRY_S
    await cluster.until(lambda: cluster.now_s >= end_s)
    assert shard.batches == asked
    await cluster.end()


async def test_a_supervisor_that_was_replaced_has_not_forgotten_them(tmp_path: Path) -> None:
    cluster = await new_cluster(tmp_path)
    await place_everywhere(cluster)
    cluster.processes["shard-1"].deaf = True
    await cluster.lose("gateway-0")
    await cluster.until(lambda: is_cancelled(cluster, "shard-0", "mortal"))
    assert not is_cancelled(cluster, "shard-1", "mortal")
    await cluster.replace_supervisor()
    await cluster.until(lambda: cluster.reconciler.is_ready)
    await cluster.until(lambda: is_cancelled(cluster, "shard-1", "mortal"))
    assert found(cluster, "shard-1", "lasting").close_reason == 0
    await cluster.end()


@pytest.mark.parametrize(
    ("living", "newest", "ended"),
    [
        ((), 2, [1, 2]),
        ((3,), 3, [1, 2]),
        ((2, 5), 6, [1, 3, 4, 6]),
        ((6, 5), 6, [1, 2, 3, 4]),
        ((1,), 1, []),
    ],
)
def test_every_incarnation_but_the_living_has_ended(living: tuple[int, ...], newest: int, ended: list[int]) -> None:
    cancels = cancel_ended(living, newest)
    for incarnation in range(1, newest + 1):
        for stream in (0, 1, (1 << SESSION_BITS) - 1):
            session = (incarnation << SESSION_BITS) + stream
            covered = [c for c in cancels if c.first <= session <= c.last]
            assert len(covered) == (incarnation in ended)
    assert all(0 < c.first <= c.last for c in cancels)
