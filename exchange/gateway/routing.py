"""A client's TradeRequest on its way to the shards and back: whole where one shard has it all, else in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from exchange.engine.commands import CancelSessions
from exchange.engine.ledger_words import Permission
from exchange.engine.words import RejectReason
from exchange.gateway.auth import Caller
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS
from exchange.gateway.links import CANCELS, CONTROL, ORDERS, Link
from exchange.gateway.pending import PendingCommands
from exchange.runtime.codec import reject_all, unknown_all
from exchange.runtime.columns import count_commands, read_columns
from exchange.runtime.messages import ReplyStatus, Segment, SegmentKind, SegmentReply
from exchange.runtime.rows import rows_segment
from exchange.v1 import trading_pb2, types_pb2

COMMANDS_MAX = 1_000
DEADLINE_MS_DEFAULT = 1_000
DEADLINE_MS_MAX = 5_000
QUEUE_FOR_MS_MAX = 8_000
_TRADE = int(SegmentKind.TRADE)
_ORDERS = frozenset(("place", "amend"))


class RequestInvalid(Exception):
    """The whole request is refused; nothing of it was executed."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def read_request(data: bytes) -> Any:
    """Return a packed TradeRequest. Raises `RequestInvalid` if it is none."""
    try:
        return trading_pb2.TradeRequest.FromString(data)
    except DecodeError as error:
        raise RequestInvalid(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED", "not a TradeRequest") from error


class _Needs(NamedTuple):
    """What the way of a request depends on. An instrument "" stands for commands that name none."""

    commands: int
    deadline_ms: int
    instruments: set[str]
    is_for_others: bool
    has_orders: bool
    queues: bool


def _needs_of(data: bytes) -> _Needs:
    """Read what must be known of a packed TradeRequest, by columns where each command names its instrument.

    Raises `RequestInvalid` if it is none.
    """
    columns = read_columns(data)
    if columns is not None:
        commands = columns.commands
        place = commands.place
        orders = place.instrument[:] + commands.amend.instrument[:]
        instruments = orders + commands.cancel.instrument[:] + commands.cancel_all.instrument[:]
        if len(instruments) == count_commands(data):
            queues, is_for_others = any(place.queue_for_ms), any(commands.on_behalf_of)
            return _Needs(len(instruments), columns.deadline_ms, set(instruments), is_for_others, bool(orders), queues)
    request = read_request(data)
    names: set[str] = set()
    is_for_others = has_orders = queues = False
    for command in request.commands:
        kind = command.WhichOneof("command")
        if kind is None:
            names.add("")
            continue
        names.add(getattr(command, kind).instrument)
        is_for_others = is_for_others or command.on_behalf_of != 0
        has_orders = has_orders or kind in _ORDERS
        queues = queues or (kind == "place" and command.place.queue_for_ms != 0)
    return _Needs(len(request.commands), request.deadline_ms, names, is_for_others, has_orders, queues)


class Answer(NamedTuple):
    """`response` becomes the packed TradeResponse. `waits`: for as long as orders in it may wait for their shards."""

    response: asyncio.Future[bytes]
    waits: bool


@dataclass(slots=True)
class _Part:
    """Commands in a row for one shard that may wait for it equally long."""

    link: Link
    wait_ms: int
    indices: list[int] = field(default_factory=list)
    request: Any = field(default_factory=trading_pb2.TradeRequest)


class Router:
    """Knows the link of every instrument's shard. `shard_of` is kept by the gateway from the shards' feeds.

    `pending` has for each shard what holds the answers to commands that wait for money.
    """

    def __init__(
        self, links: Mapping[str, Link], shard_of: Mapping[str, str], pending: Mapping[str, PendingCommands]
    ) -> None:
        self._links = links
        self._pending = pending
        self._shard_of = shard_of

    @property
    def links(self) -> Iterable[Link]:
        return self._links.values()

    def link_of(self, instrument: str) -> Link | None:
        """Return the link to the shard that has the instrument, None if none has it."""
        return self._links.get(self._shard_of.get(instrument, ""))

    def trade(self, data: bytes, caller: Caller, session: int = 0) -> Answer:
        """Queue the commands of a packed TradeRequest now.

        Raises:
            RequestInvalid: the message cannot be read, has too many commands, or names a foreign account.
        """
        needs = _needs_of(data)
        if needs.commands > COMMANDS_MAX:
            message = f"expected at most {COMMANDS_MAX} commands in a message, was {needs.commands}"
            raise RequestInvalid(grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_COMMANDS", message)
        if needs.is_for_others and not caller.may(Permission.OPERATOR):
            message = f"key {caller.key_id} may not act on behalf of another account"
            raise RequestInvalid(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING", message)
        deadline_ms = min(needs.deadline_ms or DEADLINE_MS_DEFAULT, DEADLINE_MS_MAX)
        shards = {self._shard_of.get(instrument, "") for instrument in needs.instruments}
        priority = ORDERS if needs.has_orders else CANCELS
        if len(shards) == 1 and "" not in shards and not needs.queues:
            link = self._links[next(iter(shards))]
            segment = Segment(_TRADE, caller.account, session, deadline_ms, data)
            return Answer(self._whole(link, segment, priority), waits=False)
        response = self._in_parts(read_request(data), caller, session, deadline_ms, priority)
        return Answer(asyncio.ensure_future(response), needs.queues)

    def _in_parts(
        self, request: Any, caller: Caller, session: int, deadline_ms: int, priority: int
    ) -> Coroutine[Any, Any, bytes]:
        """Send each shard its commands now; what is returned puts the results together in the order of the request."""
        response = trading_pb2.TradeResponse(request_id=request.request_id)
        parts: list[_Part] = []
        newest: dict[str, _Part] = {}
        for index, command in enumerate(request.commands):
            result = response.results.add()
            kind = command.WhichOneof("command")
            body = getattr(command, kind) if kind else None
            shard = self._shard_of.get(body.instrument, "") if body is not None else ""
            if body is None:
                _reject(result, "", RejectReason.MALFORMED)
                continue
            targets = [shard]
            if kind == "cancel_all" and not body.instrument:
                targets = list(self._links)
            elif not shard:
                _reject(result, getattr(body, "client_order_id", ""), RejectReason.INSTRUMENT_UNKNOWN)
                continue
            wait_ms = min(body.queue_for_ms, QUEUE_FOR_MS_MAX) if kind == "place" else 0
            for target in targets:
                part = newest.get(target)
                if part is None or part.wait_ms != wait_ms:
                    # A part of its own, so that a shard still gets them in the order of the request.
                    part = newest[target] = _Part(self._links[target], wait_ms)
                    parts.append(part)
                part.indices.append(index)
                part.request.commands.append(command)
        sent = []
        for part in parts:
            remaining_ms = max(part.wait_ms, deadline_ms)
            segment = Segment(_TRADE, caller.account, session, remaining_ms, part.request.SerializeToString())
            sent.append((part.indices, self._whole(part.link, segment, priority, waits=bool(part.wait_ms))))
        return self._put_together(response, sent)

    async def _put_together(self, response: Any, sent: list[tuple[list[int], asyncio.Future[bytes]]]) -> bytes:
        for indices, answer in sent:
            results = trading_pb2.TradeResponse.FromString(await answer).results
            for index, result in zip(indices, results, strict=True):
                merged = response.results[index]
                cancelled = merged.cancelled_orders + result.cancelled_orders
                if not merged.reject_reason:
                    merged.CopyFrom(result)
                merged.cancelled_orders = cancelled
        data: bytes = response.SerializeToString()
        return data

    def _whole(self, link: Link, segment: Segment, priority: int, *, waits: bool = False) -> asyncio.Future[bytes]:
        """Send a segment on a link and turn its reply into the client's TradeResponse.

        `waits`: also for a shard that is away.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if not link.is_up and not waits:
            retry_ms = UNAVAILABLE_RETRY_MS
            answer.set_result(reject_all(segment.data, RejectReason.SHARD_UNAVAILABLE, retry_after_ms=retry_ms))
            return answer

        def on_reply(reply: asyncio.Future[SegmentReply]) -> None:
            if reply.cancelled() or answer.done():
                return
            status, reason, data, _ = reply.result()
            if status == ReplyStatus.REFUSED:
                retry_after_ms = UNAVAILABLE_RETRY_MS if reason >= RejectReason.QUEUE_FULL else 0
                data = reject_all(segment.data, RejectReason(reason), retry_after_ms=retry_after_ms)
            elif status == ReplyStatus.UNKNOWN:
                data = unknown_all(segment.data)
            elif status == ReplyStatus.PARKED:
                completing = asyncio.ensure_future(self._pending[link.machine].complete(data))
                completing.add_done_callback(on_complete)
                return
            answer.set_result(data)

        def on_complete(completing: asyncio.Future[bytes]) -> None:
            if not answer.done():
                answer.set_result(completing.result())

        link.enqueue(segment, priority).add_done_callback(on_reply)
        return answer

    def cancel_session(self, session: int) -> None:
        """Cancel what a stream placed, wherever; not waited for, and not given up."""
        for link in self.links:
            link.enqueue(rows_segment([CancelSessions(session, session)], remaining_ms=600_000), CONTROL)


def _reject(result: Any, client_order_id: str, reason: RejectReason) -> None:
    result.outcome = types_pb2.OUTCOME_REJECTED
    result.client_order_id = client_order_id
    result.status = types_pb2.ORDER_STATUS_REJECTED
    result.reject_reason = int(reason)
