"""A client's TradeRequest on its way to the shards and back: whole where one shard has it all, else in parts.

Commands of a request stay in their order, so a cancel waits for the orders that came before it. It is another matter
when orders wait: then cancels of orders that the request itself does not place go ahead of everything, and cancels are
never refused along with the orders that they came with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from exchange.engine.commands import CancelSessions
from exchange.engine.ledger_words import Permission
from exchange.engine.words import RejectReason
from exchange.gateway.auth import Caller
from exchange.gateway.errors import UNAVAILABLE_RETRY_MS
from exchange.gateway.held import HeldOrders
from exchange.gateway.limits import Limits
from exchange.gateway.links import Link
from exchange.gateway.pending import PendingCommands
from exchange.gateway.requests import Needs, RequestInvalid, Touched, is_cancel, needs_of, read_request
from exchange.overload.classes import WorkClass
from exchange.runtime.codec import reject_all, unknown_all
from exchange.runtime.messages import ReplyStatus, Segment, SegmentKind, SegmentReply
from exchange.runtime.rows import rows_segment
from exchange.settings import Deadlines
from exchange.v1 import trading_pb2, types_pb2

COMMANDS_MAX = 1_000
QUEUE_FOR_MS_MAX = 8_000
_TRADE = int(SegmentKind.TRADE)


class Answer(NamedTuple):
    """`response` becomes the packed TradeResponse. `waits`: for as long as orders in it may wait for their shards.

    `refusals` has what was refused on the way, once it is there; `work_class` is that of the request.
    """

    response: asyncio.Future[bytes]
    waits: bool
    refusals: list[SegmentReply]
    work_class: WorkClass


@dataclass(slots=True)
class _Part:
    """Commands in a row for one shard that may wait for it equally long."""

    link: Link
    wait_ms: int
    work_class: WorkClass
    indices: list[int] = field(default_factory=list)
    request: Any = field(default_factory=trading_pb2.TradeRequest)
    cancels: int = 0


@dataclass(frozen=True, slots=True)
class _Way:
    """What all parts of a request have in common."""

    account: int
    session: int
    deadline_ms: int
    refusals: list[SegmentReply]

    def segment(self, data: bytes) -> Segment:
        return Segment(_TRADE, self.account, self.session, self.deadline_ms, data)


class Router:
    """Knows the link of every instrument's shard. `shard_of` is kept by the gateway from the shards' feeds.

    `pending` has for each shard what holds the answers to commands that wait for money, `held` what holds orders until
    it takes some again; `limits` are those of the accounts. `knows_all` tells whether an instrument that `shard_of` has
    not is none.
    """

    def __init__(
        self,
        links: Mapping[str, Link],
        shard_of: Mapping[str, str],
        pending: Mapping[str, PendingCommands],
        held: Mapping[str, HeldOrders],
        limits: Limits,
        *,
        knows_all: Callable[[], bool] = lambda: True,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.deadlines = Deadlines()
        self.requests = 0
        self.commands = 0
        """In these requests."""
        self._links = links
        self._pending = pending
        self._held = held
        self._knows_all = knows_all
        self._shard_of = shard_of
        self._monotonic_s = monotonic_s

    @property
    def links(self) -> Iterable[Link]:
        return self._links.values()

    def link_of(self, instrument: str) -> Link | None:
        """Return the link to the shard that has the instrument, None if none has it."""
        return self._links.get(self._shard_of.get(instrument, ""))

    def trade(self, data: bytes, caller: Caller, session: int = 0, *, follows_orders: bool = False) -> Answer:
        """Queue the commands of a packed TradeRequest now.

        `follows_orders`: it came behind orders that are under way, and may not overtake them unless by cancels.

        Raises:
            RequestInvalid: the message cannot be read, has too many commands, or names a foreign account.
        """
        needs = needs_of(data)
        if follows_orders and needs.work_class == WorkClass.PASSIVE:
            needs = needs._replace(work_class=WorkClass.ORDERS)
        self.requests += 1
        self.commands += needs.commands
        if needs.commands > COMMANDS_MAX:
            message = f"expected at most {COMMANDS_MAX} commands in a message, was {needs.commands}"
            raise RequestInvalid(grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_COMMANDS", message)
        if needs.is_for_others and not caller.may(Permission.OPERATOR):
            message = f"key {caller.key_id} may not act on behalf of another account"
            raise RequestInvalid(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING", message)
        deadlines = self.deadlines
        deadline_ms = min(needs.deadline_ms or deadlines.default_ms, deadlines.max_ms)
        way = _Way(caller.account, session, deadline_ms, [])
        limited = self.limits.refuses(caller, needs.orders, needs.cancels)
        shards = {self._shard_of.get(instrument, "") for instrument in needs.instruments}
        if len(shards) == 1 and "" not in shards and not needs.queues and limited is None:
            link = self._links[next(iter(shards))]
            if not (needs.is_mixed and link.admission.has_backlog):
                return Answer(self._whole(link, data, way, needs), False, way.refusals, needs.work_class)
        response = self._in_parts(read_request(data), way, needs, limited)
        return Answer(asyncio.ensure_future(response), needs.queues, way.refusals, needs.work_class)

    def _in_parts(
        self, request: Any, way: _Way, needs: Needs, limited: tuple[SegmentReply | None, SegmentReply | None] | None
    ) -> Coroutine[Any, Any, bytes]:
        """Send each shard its commands now; what is returned puts the results together in the order of the request.

        `limited` has the refusals of all orders and of all cancels, where they exceed the account's limit.
        """
        response = trading_pb2.TradeResponse(request_id=request.request_id)
        parts: list[_Part] = []
        newest: dict[tuple[str, bool], _Part] = {}
        touched = Touched()
        orders_limited, cancels_limited = limited or (None, None)
        way.refusals.extend(refusal for refusal in (orders_limited, cancels_limited) if refusal is not None)
        for index, command in enumerate(request.commands):
            result = response.results.add()
            kind = command.WhichOneof("command")
            body = getattr(command, kind) if kind else None
            shard = self._shard_of.get(body.instrument, "") if body is not None else ""
            if body is None:
                _reject(result, "", RejectReason.MALFORMED)
                continue
            cancels = is_cancel(command)
            refusal = cancels_limited if cancels else orders_limited
            targets = [shard]
            if refusal is not None:
                _reject(
                    result, getattr(body, "client_order_id", ""), RejectReason(refusal.reason), refusal.retry_after_ms
                )
                continue
            if kind == "cancel_all" and not body.instrument:
                targets = list(self._links)
            elif not shard:
                if self._knows_all():
                    _reject(result, getattr(body, "client_order_id", ""), RejectReason.INSTRUMENT_UNKNOWN)
                else:
                    away = RejectReason.SHARD_UNAVAILABLE
                    _reject(result, getattr(body, "client_order_id", ""), away, UNAVAILABLE_RETRY_MS)
                continue
            wait_ms = min(body.queue_for_ms, QUEUE_FOR_MS_MAX) if kind == "place" else 0
            may_go_ahead = cancels and touched.may_go_ahead(command)
            if not cancels:
                touched.add(command)
            for target in targets:
                link = self._links[target]
                is_ahead = may_go_ahead and needs.is_mixed and link.admission.has_backlog
                part = newest.get((target, is_ahead))
                if part is None or part.wait_ms != wait_ms:
                    # A part of its own, so that a shard still gets them in the order of the request.
                    part = _Part(link, wait_ms, WorkClass.CANCELS if is_ahead else needs.work_class)
                    newest[target, is_ahead] = part
                    parts.append(part)
                part.indices.append(index)
                part.request.commands.append(command)
                part.cancels += cancels
        # Those that go ahead are of a class that does.
        sent: list[tuple[_Part, asyncio.Future[bytes]]] = []
        for part in parts:
            sent.append((part, self._send(part, way, [earlier for earlier in sent if earlier[0].link is part.link])))
        return self._put_together(response, [(part.indices, answer) for part, answer in sent])

    def _send(
        self, part: _Part, way: _Way, earlier: Sequence[tuple[_Part, asyncio.Future[bytes]]]
    ) -> asyncio.Future[bytes]:
        """Send a part of a request. `earlier` has those for the same shard, and what becomes of them."""
        orders = len(part.indices) - part.cancels
        work_class = part.work_class if orders or earlier else WorkClass.CANCELS
        needs = Needs(orders, part.cancels, 0, set(), False, work_class, False)
        data = part.request.SerializeToString()
        if not part.wait_ms:
            # Those that wait by `queue_for` may come later than what was sent after them.
            behind = [answer for other, answer in earlier if not other.wait_ms]
            return self._whole(part.link, data, way, needs, behind)

        def send(data: bytes, remaining_ms: int) -> asyncio.Future[bytes]:
            its_way = _Way(way.account, way.session, remaining_ms, way.refusals)
            return self._whole(part.link, data, its_way, needs)

        wait_s = max(part.wait_ms, way.deadline_ms) / 1_000
        return self._held[part.link.machine].enter(data, wait_s, send)

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

    def _whole(
        self,
        link: Link,
        data: bytes,
        way: _Way,
        needs: Needs,
        behind: Sequence[asyncio.Future[bytes]] = (),
    ) -> asyncio.Future[bytes]:
        """Send a request on a link as it is, and turn its reply into the client's TradeResponse.

        Its cancels do not overtake those parts of the same request that become `behind`.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if not link.is_up:
            refusal = link.admission.away(needs.work_class, needs.commands)
            way.refusals.append(refusal)
            answer.set_result(_refuse_all(data, refusal))
            return answer
        deadline_s = self._monotonic_s() + way.deadline_ms / 1_000

        def on_reply(reply: asyncio.Future[SegmentReply]) -> None:
            if reply.cancelled() or answer.done():
                return
            status, reason, answered = reply.result()[:3]
            if status == ReplyStatus.REFUSED:
                way.refusals.append(reply.result())
                if needs.cancels and needs.work_class.is_sheddable and reason == RejectReason.QUEUE_FULL:
                    rescue = self._rescue(link, data, way, deadline_s, reply.result(), behind)
                    rescuing = asyncio.ensure_future(rescue)
                    rescuing.add_done_callback(on_complete)
                    return
                answered = _refuse_all(data, reply.result())
            elif status == ReplyStatus.UNKNOWN:
                answered = unknown_all(data)
            elif status == ReplyStatus.PARKED:
                completing = asyncio.ensure_future(self._pending[link.machine].complete(answered))
                completing.add_done_callback(on_complete)
                return
            elif not link.admission.is_open():
                answered = _with_times_to_return(answered, link)
            answer.set_result(answered)

        def on_complete(completing: asyncio.Future[bytes]) -> None:
            if not answer.done():
                answer.set_result(completing.result())

        link.enqueue(way.segment(data), needs.work_class, needs.commands).add_done_callback(on_reply)
        return answer

    async def _rescue(
        self,
        link: Link,
        data: bytes,
        way: _Way,
        deadline_s: float,
        refusal: SegmentReply,
        behind: Sequence[asyncio.Future[bytes]],
    ) -> bytes:
        """Send the cancels of a request whose orders were refused: not having been executed, they change nothing."""
        if behind:
            await asyncio.wait(behind)
        request = read_request(data)
        response = trading_pb2.TradeResponse.FromString(_refuse_all(data, refusal))
        indices = [index for index, command in enumerate(request.commands) if is_cancel(command)]
        cancels = trading_pb2.TradeRequest(commands=[request.commands[index] for index in indices])
        needs = Needs(0, len(indices), 0, set(), False, WorkClass.CANCELS, False)
        remaining_ms = int((deadline_s - self._monotonic_s()) * 1_000)
        its_way = _Way(way.account, way.session, remaining_ms, way.refusals)
        answer = await self._whole(link, cancels.SerializeToString(), its_way, needs)
        for index, result in zip(indices, trading_pb2.TradeResponse.FromString(answer).results, strict=True):
            response.results[index].CopyFrom(result)
        packed: bytes = response.SerializeToString()
        return packed

    def cancel_session(self, session: int) -> None:
        """Cancel what a stream placed, wherever; not waited for, and not given up."""
        for link in self.links:
            link.enqueue(rows_segment([CancelSessions(session, session)], remaining_ms=600_000), WorkClass.CONTROL)


def _with_times_to_return(answered: bytes, link: Link) -> bytes:
    """Return a packed TradeResponse that tells when to come back with what the shard's stage has refused.

    How long somebody means to keep it halted, nobody knows.
    """
    response = trading_pb2.TradeResponse.FromString(answered)
    retry_after_ms = link.admission.retry_after_ms()
    for result in response.results:
        if RejectReason.STAGE_REPLAYING <= result.reject_reason < RejectReason.STAGE_HALTED:
            result.retry_after_ms = retry_after_ms
    packed: bytes = response.SerializeToString()
    return packed


def _refuse_all(data: bytes, refusal: SegmentReply) -> bytes:
    return reject_all(data, RejectReason(refusal.reason), retry_after_ms=refusal.retry_after_ms)


def _reject(result: Any, client_order_id: str, reason: RejectReason, retry_after_ms: int = 0) -> None:
    result.outcome = types_pb2.OUTCOME_REJECTED
    result.client_order_id = client_order_id
    result.status = types_pb2.ORDER_STATUS_REJECTED
    result.reject_reason = int(reason)
    result.retry_after_ms = retry_after_ms
