"""Single requests over each way of sending: what is told, written down, and kept when connections are dropped."""

import asyncio
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from chaos.load.attempts import AttemptLog
from chaos.load.bare import BareSender
from chaos.load.client_log import ACKNOWLEDGED, REJECTED, UNKNOWN, ClientLog, read_lines
from chaos.load.echo import MARKET, running_echo
from chaos.load.sending import make_sender
from exchange.v1 import trading_pb2, types_pb2
from tests.chaos.load.plans import group_of

NOBODY = "127.0.0.1:1"
"""Reserved: nobody listens there."""
DEADLINE_MS = 30_000
ORDER = trading_pb2.Command(
    place=trading_pb2.PlaceOrderRequest(
        instrument=MARKET.symbol,
        client_order_id="c-1",
        side=types_pb2.SIDE_BUY,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=MARKET.price,
        quantity=MARKET.quantity,
    )
)


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    async with running_echo() as address:
        yield address


@pytest.mark.parametrize(
    ("transport", "retry"),
    [*product(["unary"], ["none", "backoff", "budget", "naive"]), ("session", "budget"), ("session", "naive")],
)
async def test_an_order_is_acknowledged_and_written_down_also_after_a_reconnect(
    echo: str, tmp_path: Path, transport: str, retry: str
) -> None:
    group = group_of(1, transport=transport, retry=retry, deadline_ms=DEADLINE_MS)
    with ClientLog(tmp_path / "c.log") as log:
        sender = make_sender([echo], "key", group, (MARKET,), AttemptLog(log), Random(1))
        assert (await sender.send(ORDER, 0)).outcome == ACKNOWLEDGED
        await sender.reconnect()
        assert (await sender.send(ORDER, 0)).outcome == ACKNOWLEDGED
        assert sender.attempts >= 2
        await sender.close()
    events = [line["e"] for line, _ in read_lines(tmp_path / "c.log")]
    assert events == ["send", "out", "send", "out", "end"]


async def test_a_client_turns_to_the_next_gateway_where_one_is_not_there(echo: str) -> None:
    group = group_of(1, retry="ignores-pushback", deadline_ms=DEADLINE_MS)
    sender = BareSender([NOBODY, echo], "key", group, AttemptLog(None), Random(1))
    assert (await sender.send(ORDER, 0)).outcome == ACKNOWLEDGED
    assert sender.attempts == 2
    await sender.close()


class Refusing:
    """A gateway that answers with one error."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        self._code, self._reason = code, reason
        self.asked = asyncio.Event()

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.asked.set()
        if self._code is grpc.StatusCode.OK:
            await asyncio.Event().wait()
        details = []
        if self._reason:
            packed = any_pb2.Any()
            packed.Pack(error_details_pb2.ErrorInfo(reason=f"REJECT_REASON_{self._reason}"))
            details.append(packed)
        status = status_pb2.Status(code=self._code.value[0], message="no", details=details)
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("aborted above")


async def served(gateway: Refusing) -> tuple[Any, str]:
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"PlaceOrder": grpc.unary_unary_rpc_method_handler(gateway.answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("exchange.v1.TradingService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("code", "reason", "outcome", "told"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", REJECTED, "QUEUE_FULL"),
        (grpc.StatusCode.UNAVAILABLE, "SHARD_UNAVAILABLE", REJECTED, "SHARD_UNAVAILABLE"),
        (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN", UNKNOWN, "OUTCOME_UNKNOWN"),
        (grpc.StatusCode.UNAVAILABLE, "", UNKNOWN, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, "", UNKNOWN, "INTERNAL"),
        (grpc.StatusCode.UNAUTHENTICATED, "", REJECTED, "UNAUTHENTICATED"),
    ],
)
async def test_an_error_leaves_an_order_open_unless_the_exchange_says_why(
    code: grpc.StatusCode, reason: str, outcome: int, told: str
) -> None:
    server, address = await served(Refusing(code, reason))
    sender = BareSender(
        [address], "key", group_of(1, retry="none", deadline_ms=DEADLINE_MS), AttemptLog(None), Random(1)
    )
    answer = await sender.send(ORDER, 0)
    assert (answer.outcome, answer.reason) == (outcome, told)
    await sender.close()
    await server.stop(None)


async def test_what_is_under_way_on_a_connection_that_is_dropped_is_unknown() -> None:
    gateway = Refusing(grpc.StatusCode.OK, "")
    server, address = await served(gateway)
    sender = BareSender(
        [address], "key", group_of(1, retry="none", deadline_ms=DEADLINE_MS), AttemptLog(None), Random(1)
    )
    sending = asyncio.create_task(sender.send(ORDER, 0))
    await gateway.asked.wait()
    await sender.reconnect()
    assert (await sending).outcome == UNKNOWN
    await sender.close()
    await server.stop(None)


def test_reasons_that_pass_begin_where_those_of_an_order_end() -> None:
    assert types_pb2.REJECT_REASON_QUEUE_FULL >= 500 > types_pb2.REJECT_REASON_INSUFFICIENT_FUNDS
