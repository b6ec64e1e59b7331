"""TradingService: commands go to the shards through the links, questions go past them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import AsyncIterator, Mapping
from itertools import count
from typing import Any

import grpc

from exchange.engine.commands import CancelAllAfter
from exchange.engine.ledger_words import Permission
from exchange.engine.words import RejectReason, Stage
from exchange.gateway.auth import Caller, authenticate, while_valid
from exchange.gateway.draining import Draining, send_elsewhere
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS, abort, abort_as_starting, code_of
from exchange.gateway.executions import ExecutionHub
from exchange.gateway.ledger import LedgerReplica
from exchange.gateway.links import Link
from exchange.gateway.queries import Queries, QueryRefused
from exchange.gateway.replica import ShardReplica, all_loaded
from exchange.gateway.requests import RequestInvalid
from exchange.gateway.routing import Answer, Router
from exchange.gateway.trade_stream import TradeStream
from exchange.overload.classes import WorkClass
from exchange.overload.pushback import NEVER_MS
from exchange.runtime.messages import ReplyStatus, unpack
from exchange.runtime.peers import PeerUnavailable
from exchange.runtime.rows import rows_segment
from exchange.v1 import trading_pb2, trading_pb2_grpc, types_pb2

STREAMS_PER_KEY_MAX = 16
PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 100, 1_000
TIMEOUT_MS_MIN, TIMEOUT_MS_MAX = 1_000, 600_000


class TradingService(trading_pb2_grpc.TradingServiceServicer):
    """`session_base` is added to the number of each stream, so that sessions are unique over gateways and restarts."""

    def __init__(
        self,
        router: Router,
        queries: Mapping[str, Queries],
        replicas: Mapping[str, ShardReplica],
        ledger: LedgerReplica,
        executions: ExecutionHub,
        session_base: int,
        clock_ns: Any,
        draining: Draining,
    ) -> None:
        self._router = router
        self._queries = queries
        self._replicas = replicas
        self._ledger = ledger
        self._executions = executions
        self._sessions = count(session_base + 1)
        self._clock_ns = clock_ns
        self._draining = draining
        self._streams: dict[str, int] = {}

    # ---------------------------------------------------------------- one command

    async def PlaceOrder(self, request: Any, context: Any) -> Any:
        command = trading_pb2.Command(place=request)
        return trading_pb2.PlaceOrderResponse(result=await self._one(command, context))

    async def AmendOrder(self, request: Any, context: Any) -> Any:
        command = trading_pb2.Command(amend=request)
        return trading_pb2.AmendOrderResponse(result=await self._one(command, context))

    async def CancelOrder(self, request: Any, context: Any) -> Any:
        command = trading_pb2.Command(cancel=request)
        return trading_pb2.CancelOrderResponse(result=await self._one(command, context))

    async def PlaceOrders(self, request: Any, context: Any) -> Any:
        commands = [trading_pb2.Command(place=order) for order in request.orders]
        return trading_pb2.PlaceOrdersResponse(results=await self._many(commands, context))

    async def CancelAllOrders(self, request: Any, context: Any) -> Any:
        result = await self._one(trading_pb2.Command(cancel_all=request), context)
        away = [link.machine for link in self._router.links if not link.is_up]
        unavailable = away if not request.instrument else []
        return trading_pb2.CancelAllOrdersResponse(
            cancelled_orders=result.cancelled_orders, unavailable_shards=unavailable
        )

    async def CancelAllAfter(self, request: Any, context: Any) -> Any:
        caller = await authenticate(context, self._ledger, Permission.TRADE)
        timeout_ms = request.timeout_ms
        if timeout_ms and not TIMEOUT_MS_MIN <= timeout_ms <= TIMEOUT_MS_MAX:
            message = f"timeout_ms: expected 0 or {TIMEOUT_MS_MIN} to {TIMEOUT_MS_MAX}, was {timeout_ms}"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "TIMEOUT_INVALID", message)
        trigger_time_ns = self._clock_ns() + timeout_ms * 1_000_000 if timeout_ms else 0
        segment = rows_segment([CancelAllAfter(caller.account, trigger_time_ns)], remaining_ms=1_000)
        links = list(self._router.links)
        replies = await asyncio.gather(*(link.enqueue(segment, WorkClass.CANCELS) for link in links))
        failed = [link.machine for link, reply in zip(links, replies, strict=True) if reply.status != ReplyStatus.DONE]
        return trading_pb2.CancelAllAfterResponse(trigger_time_ns=trigger_time_ns, unavailable_shards=failed)

    async def _one(self, command: Any, context: Any) -> Any:
        """Return the result of a single command, or end the call if it was surely not executed for now."""
        caller, answer = await self._send([command], context)
        (result,) = trading_pb2.TradeResponse.FromString(await answer.response).results
        reason = int(result.reject_reason)
        link = self._router.link_of(getattr(command, command.WhichOneof("command")).instrument)
        trailers = [*self._state_of(link), *self._limit_of(caller)]
        if reason == RejectReason.MALFORMED or reason >= RejectReason.STAGE_REPLAYING:
            rejected = RejectReason(reason)
            refusal = answer.refusals[-1] if answer.refusals else None
            shed = refusal.shed if refusal is not None else ""
            if shed:
                trailers.append(("shed-reason", shed))
            message = f"not executed: {rejected.name}"
            if refusal is not None and refusal.detail:
                message += f": {refusal.detail}"
            retry_after_ms = result.retry_after_ms or _retry_after_ms(rejected, link)
            await abort(context, code_of(rejected), rejected.name, message, retry_after_ms, trailers=trailers)
        context.set_trailing_metadata(tuple(trailers))
        return result

    async def _many(self, commands: list[Any], context: Any) -> Any:
        caller, answer = await self._send(commands, context)
        results = trading_pb2.TradeResponse.FromString(await answer.response).results
        context.set_trailing_metadata(tuple(self._limit_of(caller)))
        return results

    async def _send(self, commands: list[Any], context: Any) -> tuple[Caller, Answer]:
        caller = await authenticate(context, self._ledger, Permission.TRADE)
        remaining_s = context.time_remaining()
        deadline_ms = 0 if remaining_s is None else max(int(remaining_s * 1_000), 1)
        deadline_ms = min(deadline_ms, self._router.deadlines.max_ms)
        request = trading_pb2.TradeRequest(commands=commands, deadline_ms=deadline_ms)
        try:
            return caller, self._router.trade(request.SerializeToString(), caller)
        except RequestInvalid as error:
            await abort(context, error.code, error.reason, str(error))

    def _state_of(self, link: Link | None) -> list[tuple[str, str]]:
        """Return trailers that tell how the shard is, as far as this gateway knows."""
        if link is None:
            return []
        replica = self._replicas[link.machine]
        return [("market-stage", Stage(replica.stage).name), ("epoch", str(replica.epoch))]

    def _limit_of(self, caller: Caller) -> list[tuple[str, str]]:
        """Return trailers that tell what is left of an account's limit (IETF draft-ietf-httpapi-ratelimit-headers)."""
        state = self._router.limits.state(caller)
        if state is None:
            return []
        return [
            ("ratelimit-limit", str(state.limit_per_s)),
            ("ratelimit-remaining", str(state.remaining)),
            ("ratelimit-reset", str(math.ceil(state.reset_s))),
        ]

    # ---------------------------------------------------------------- streams

    async def trade_stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve `Trade` on raw bytes: what one shard can take whole is neither built nor read again on the way."""
        caller = await authenticate(context, self._ledger, Permission.TRADE)
        await self._enter(context, caller)
        session = next(self._sessions)
        stream = TradeStream(self._router, caller, session, self._draining)
        try:
            async with while_valid(context, self._ledger, caller) as write:
                await stream.serve(requests, write)
            if stream.refusal is not None:
                await abort(context, stream.refusal.code, stream.refusal.reason, str(stream.refusal))
            if stream.is_cut:
                await send_elsewhere(context)
        finally:
            self._leave(caller)
            if stream.cancel_on_disconnect:
                self._router.cancel_session(session)

    def Trade(self, request: Any, context: Any) -> Any:
        """Not reached: `trade_stream` is registered in its place."""
        raise NotImplementedError

    async def StreamExecutions(self, request: Any, context: Any) -> None:  # type: ignore[override]  # writes itself
        caller = await authenticate(context, self._ledger, Permission.READ)
        await self._enter(context, caller)
        try:
            async with while_valid(context, self._ledger, caller) as write:
                async for response in self._executions.stream(caller.account, dict(request.after_sequences), context):
                    await write(response)
            await send_elsewhere(context)
        finally:
            self._leave(caller)

    async def _enter(self, context: Any, caller: Caller) -> None:
        streams = self._streams.get(caller.key_id, 0)
        if streams >= STREAMS_PER_KEY_MAX:
            message = f"expected at most {STREAMS_PER_KEY_MAX} streams per key"
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", message)
        self._streams[caller.key_id] = streams + 1

    def _leave(self, caller: Caller) -> None:
        self._streams[caller.key_id] -= 1

    # ---------------------------------------------------------------- questions

    async def GetOrder(self, request: Any, context: Any) -> Any:
        caller = await authenticate(context, self._ledger, Permission.READ)
        link = self._router.link_of(request.instrument)
        if link is None:
            if not all_loaded(self._replicas):
                await abort_as_starting(context, "the gateway does not know yet whether there is such an instrument")
            message = f"no instrument {request.instrument!r}"
            await abort(context, grpc.StatusCode.NOT_FOUND, "INSTRUMENT_UNKNOWN", message)
        question = ("find", caller.account, request.instrument, request.client_order_id, request.order_id)
        orders = await self._ask(link, question, context)
        if not orders:
            message = "no such order, open or closed within the last minutes"
            await abort(context, grpc.StatusCode.NOT_FOUND, "ORDER_UNKNOWN", message)
        return trading_pb2.GetOrderResponse(order=orders[0])

    async def ListOrders(self, request: Any, context: Any) -> Any:
        caller = await authenticate(context, self._ledger, Permission.READ)
        page_size = request.page_size or PAGE_SIZE_DEFAULT
        shards = sorted(link.machine for link in self._router.links)
        links = {link.machine: link for link in self._router.links}
        if request.instrument:
            link = self._router.link_of(request.instrument)
            shards = [link.machine] if link is not None else []
        shard, after = _parse_token(request.page_token)
        if page_size > PAGE_SIZE_MAX or (request.page_token and shard not in links):
            message = f"expected a page of at most {PAGE_SIZE_MAX} and a token from the page before"
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_INVALID", message)
        orders: list[Any] = []
        for name in shards:
            if name < shard:
                continue
            after_order_id = after if name == shard else 0
            wanted = page_size - len(orders)
            question = (
                "list",
                caller.account,
                request.instrument,
                request.include_closed,
                after_order_id,
                wanted,
            )
            found = await self._ask(links[name], question, context)
            orders += found
            if len(found) == wanted:
                token = base64.urlsafe_b64encode(f"{name} {found[-1].order_id}".encode()).decode()
                return trading_pb2.ListOrdersResponse(orders=orders, next_page_token=token)
        return trading_pb2.ListOrdersResponse(orders=orders)

    async def _ask(self, link: Link, question: tuple[Any, ...], context: Any) -> list[Any]:
        try:
            answer = await self._queries[link.machine].ask(question)
        except PeerUnavailable as error:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "SHARD_UNAVAILABLE", str(error), UNAVAILABLE_RETRY_MS)
        except QueryRefused as error:
            reason, shed = RejectReason(error.refusal.reason), error.refusal.shed
            trailers = [*self._state_of(link), ("shed-reason", shed)]
            retry_after_ms = error.refusal.retry_after_ms
            await abort(context, code_of(reason), reason.name, str(error), retry_after_ms, trailers=trailers)
        return [types_pb2.Order.FromString(data) for data in unpack(answer)]


def _retry_after_ms(reason: RejectReason, link: Link | None) -> int | None:
    """Return when to come back for what the shard itself refused for now."""
    if reason == RejectReason.MALFORMED:
        return None
    # How long somebody means to keep it so, nobody knows.
    if reason == RejectReason.STAGE_HALTED or link is None:
        return NEVER_MS
    return link.admission.retry_after_ms()


def _parse_token(token: str) -> tuple[str, int]:
    try:
        shard, _, order_id = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        return shard, int(order_id or 0)
    except (ValueError, binascii.Error):
        return "?", 0


class _RawTrade:
    """A server as generated code sees it while it registers TradingService: `Trade` is put in on raw bytes."""

    def __init__(self, service: TradingService, server: Any) -> None:
        self._service = service
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Not used: the same methods come registered."""

    def add_registered_method_handlers(self, name: str, handlers: dict[str, Any]) -> None:
        handlers["Trade"] = grpc.stream_stream_rpc_method_handler(self._service.trade_stream)
        self._server.add_registered_method_handlers(name, handlers)


def add_trading_service(service: TradingService, server: Any) -> None:
    """Register the service, `Trade` on raw bytes."""
    registrar: Any = _RawTrade(service, server)
    trading_pb2_grpc.add_TradingServiceServicer_to_server(service, registrar)
