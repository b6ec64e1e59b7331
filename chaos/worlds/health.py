"""Whether the exchange is healthy: components are up, shards open, every gateway takes orders for each market."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import grpc

from chaos.faults.fault import Target
from chaos.load.attempts import CHANNEL_OPTIONS, bearer
from exchange.v1 import admin_pb2, admin_pb2_grpc, trading_pb2, trading_pb2_grpc, types_pb2

EVENTS_FILE = "events.log"
"""Beside the log of the status: what the supervisors say happened to whom."""
STATUS_TIMEOUT_S = 2.0
PROBE_TIMEOUT_S = 2.0
POLL_S = 0.1
AUDITOR = "auditor"
STANDBY_SUFFIX = "-standby"
"""It gives way to everything else, so it may answer late while all is well."""
_UP = admin_pb2.COMPONENT_STATE_UP


class Health:
    """Asks for the status and sends probing orders. What it was told stands in `log`, for the checker."""

    def __init__(
        self, addresses: Sequence[str], operator_key: str, probe_key: str, markets: Mapping[str, str], log: Path
    ) -> None:
        self._addresses = addresses
        self._operator = bearer(operator_key)
        self._probe = bearer(probe_key)
        self._markets = markets
        self._numbers = count(1)
        self._log = log.open("w", encoding="utf-8")
        self._events = log.with_name(EVENTS_FILE).open("w", encoding="utf-8")
        self._events_of = 0
        self._events_after = 0
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._seen: dict[str, tuple[Any, ...]] = {}
        self.last: list[admin_pb2.Component] = []

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        return self._channels[address]

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._log.close()
        self._events.close()

    async def status(self) -> list[admin_pb2.Component]:
        """Return the components as the first gateway that knows says. Raises `grpc.aio.AioRpcError` if none does."""
        failure: grpc.aio.AioRpcError | None = None
        for address in self._addresses:
            stub = admin_pb2_grpc.AdminServiceStub(self._channel(address))
            try:
                response = await stub.GetStatus(
                    admin_pb2.GetStatusRequest(), metadata=self._operator, timeout=STATUS_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                failure = error
                continue
            self.last = list(response.components)
            self._note(self.last)
            await self._take_events(stub)
            return self.last
        assert failure is not None, "no gateway"
        raise failure

    async def _take_events(self, stub: admin_pb2_grpc.AdminServiceAsyncStub) -> None:
        """Write down the supervisor's events that are new, another supervisor's from its first on."""
        request = admin_pb2.ListEventsRequest(after_sequence=self._events_after)
        try:
            response = await stub.ListEvents(request, metadata=self._operator, timeout=STATUS_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return  # the next status asks for them again
        if response.supervisor != self._events_of:
            self._events_of, self._events_after = response.supervisor, 0
            if request.after_sequence:
                await self._take_events(stub)
                return
        for event in response.events:
            line = {field.name: getattr(event, field.name) for field in event.DESCRIPTOR.fields}
            self._events.write(json.dumps({"supervisor": response.supervisor, **line}) + "\n")
            self._events_after = event.sequence

    def _note(self, components: Sequence[admin_pb2.Component]) -> None:
        """Write down what is new."""
        for c in components:
            seen = (c.state, c.incarnation, c.pid, c.epoch, c.state_hash, c.stage, c.role, c.node, c.detail)
            if self._seen.get(c.name) == seen:
                continue
            self._seen[c.name] = seen
            line = {
                "t": time.monotonic_ns(),
                "name": c.name.removesuffix(STANDBY_SUFFIX),
                "standby": c.name.endswith(STANDBY_SUFFIX),
                "role": int(c.role),
                "node": c.node,
                "address": c.address,
                "record": c.record,
                "state": int(c.state),
                "incarnation": c.incarnation,
                "pid": c.pid,
                "epoch": c.epoch,
                "seq": c.sequence,
                "hash": c.state_hash,
                "hash_seq": c.state_hash_sequence,
                "stage": int(c.stage),
                "detail": c.detail,
            }
            self._log.write(json.dumps(line) + "\n")

    async def sick(self, killed_pids: Sequence[int] = ()) -> str:
        """Return what is not as it should be; empty: all is well."""
        try:
            components = await self.status()
        except grpc.aio.AioRpcError as error:
            return f"no status: {error.code().name} {error.details()}"
        for c in components:
            if c.state != _UP and c.name != AUDITOR:
                return f"{c.name}: state {c.state} {c.detail}"
            if c.pid in killed_pids:
                return f"{c.name}: still said to be {c.pid}, which was killed"
            standby = c.name.endswith(STANDBY_SUFFIX)
            if c.role and c.role != (admin_pb2.ROLE_STANDBY if standby else admin_pb2.ROLE_PRIMARY):
                return f"{c.name}: role {c.role}"
            if c.name.startswith("shard") and not standby and c.stage != types_pb2.STAGE_OPEN:
                return f"{c.name}: stage {c.stage}"
        probes = [self._trade(address, market) for address in self._addresses for market in self._markets]
        return next(filter(None, await asyncio.gather(*probes)), "")

    async def _trade(self, address: str, market: str) -> str:
        """Place an order that meets nobody, and cancel it; return what went wrong."""
        stub = trading_pb2_grpc.TradingServiceStub(self._channel(address))
        order = trading_pb2.PlaceOrderRequest(
            instrument=market,
            client_order_id=f"probe-{next(self._numbers)}",
            side=types_pb2.SIDE_BUY,
            type=types_pb2.ORDER_TYPE_LIMIT,
            price=1,
            quantity=1,
            post_only=True,
        )
        cancel = trading_pb2.CancelOrderRequest(instrument=market, client_order_id=order.client_order_id)
        try:
            placed = await stub.PlaceOrder(order, metadata=self._probe, timeout=PROBE_TIMEOUT_S)
            if placed.result.outcome != types_pb2.OUTCOME_ACKNOWLEDGED:
                return f"{address}: order in {market}: {placed.result}"
            await stub.CancelOrder(cancel, metadata=self._probe, timeout=PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return f"{address}: order in {market}: {error.code().name} {error.details()}"
        return ""

    async def wait(self, limit_s: float, killed_pids: Sequence[int] = ()) -> tuple[float, str]:
        """Wait until all is well; return how long that took, and what was wrong at last (empty: nothing)."""
        started_s = time.monotonic()
        while (sick := await self.sick(killed_pids)) and time.monotonic() - started_s < limit_s:
            await asyncio.sleep(POLL_S)
        return time.monotonic() - started_s, sick

    def targets(self) -> list[Target]:
        """Return the processes that the last status named."""
        return [_target(c) for c in self.last if c.pid]


def _target(c: admin_pb2.Component) -> Target:
    role = "standby" if c.name.endswith(STANDBY_SUFFIX) else c.name.partition("-")[0]
    return Target(c.name, role, c.pid, c.node)
