"""A trading session: many commands a message, several messages in flight, over one stream.

What becomes of a batch that was sent and not yet answered when the connection breaks:

- A gateway that drains says so first: then nothing more is sent to it, and what it took is answered before
  the stream ends. What it did not take is sent at the next one as if for the first time.
- A gateway that owes answers and says nothing at all, not even how it is, is left for another address: its
  connection counts as broken.
- Places and cancels are sent again on the next connection, with the same ids, as long as the batch has
  time and the client's retry budget allows; they wait a moment for it, in their place. If they had been
  executed, the exchange answers with the first outcome, flagged `duplicate`: that is the right one.
  That it was not taken the second time says nothing of the first: such a result is UNKNOWN.
- Amends and cancel-alls say what shall be *now*. Sent again after something later they would undo it. So
  a batch with one of these is sent again only if nothing was sent after it in this session.
- Otherwise `send` raises OutcomeUnknown; `get_order` tells the truth, and so does a place that is sent
  again with the same PlaceOrder.
- With `cancel_on_disconnect` the session ends with its connection, because the exchange has cancelled its
  orders: what was not answered is unknown, and a new session must be opened on purpose.

The session itself retries nothing that was answered: a result that is rejected for the moment's sake, or
unknown, is returned as it is. But it leaves a gateway that for some time has been saying nothing but that shards
are away: they may be away from that one alone.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from exchange.client._call import Caller
from exchange.client._channels import Gateway
from exchange.client._commands import AmendOrder, CancelAllOrders, CancelOrder, Command, PlaceOrder
from exchange.client._errors import (
    GATEWAY_DRAINING,
    ClientClosed,
    DeadlineExceeded,
    EvenkeelError,
    NotExecuted,
    OutcomeUnknown,
    TransportError,
    Unavailable,
    from_rpc_error,
)
from exchange.client._instruments import InstrumentCache
from exchange.client._results import OrderResult
from exchange.client._rpcs import TRADE
from exchange.client._streams import Reconnect
from exchange.v1 import trading_pb2, types_pb2

_Call = grpc.aio.StreamStreamCall[trading_pb2.TradeRequest, trading_pb2.TradeResponse]

_MS = 1000
_RESEND_WAIT_S = 0.5
"""What was sent before a connection broke waits so long in all for the retry budget, which new batches add to."""
_RESEND_STEP_S = 0.01
_LEAVE_AFTER_S = 3.0
"""Longer than it takes a shard to fail over: then it is elsewhere that it may be found."""
_SILENCE_S, _PROBE_S = 0.2, 0.3
"""A batch has a second by default: a gateway that hangs must be found out while there is time to go elsewhere."""
_SHARD_UNAVAILABLE = types_pb2.REJECT_REASON_SHARD_UNAVAILABLE
_NOT_TAKEN = {
    types_pb2.REJECT_REASON_DEADLINE_EXCEEDED,
    types_pb2.REJECT_REASON_QUEUE_FULL,
    types_pb2.REJECT_REASON_RATE_LIMITED,
    types_pb2.REJECT_REASON_SHARD_UNAVAILABLE,
    types_pb2.REJECT_REASON_JOURNAL_UNAVAILABLE,
}
"""Told by those before the shard, who do not know what became of a command that was sent before."""


@dataclass(slots=True, eq=False)
class _Batch:
    request: trading_pb2.TradeRequest
    deadline: float
    answer: "asyncio.Future[Sequence[trading_pb2.OrderResult]]"
    sends: int = 0
    connection: int = field(default=0)
    """The last one that it was sent on."""

    @property
    def repeatable_at_any_time(self) -> bool:
        return all(command.WhichOneof("command") in ("place", "cancel") for command in self.request.commands)


class TradeSession:
    """From `client.trade()`, an async context manager.

    Leaving it waits for the answers that are still due, unless by an exception.
    """

    def __init__(
        self,
        caller: Caller,
        instruments: InstrumentCache,
        reconnect: Reconnect,
        *,
        cancel_on_disconnect: bool,
        timeout: float,
        grace: float,
        in_flight_max: int,
    ) -> None:
        self.reconnects = 0
        self._caller = caller
        self._instruments = instruments
        self._reconnect = reconnect
        self._cancel_on_disconnect = cancel_on_disconnect
        self._timeout_s = timeout
        self._grace_s = grace
        self._slots = asyncio.Semaphore(in_flight_max)
        self._pending: dict[int, _Batch] = {}
        self._outbox: deque[_Batch] = deque()
        self._more = asyncio.Event()
        self._request_id = 0
        self._last_sent_id = 0
        self._connection = 0
        self._resend_wait_s = 0.0
        self._cut_off_since: float | None = None
        self._heard = 0
        """Messages, on all connections."""
        self._has_answered = False
        """Of this connection."""
        self._leaves = False
        """This connection ends when all that was sent on it is answered."""
        self._runner: asyncio.Task[None] | None = None
        self._ended: EvenkeelError | None = None

    async def __aenter__(self) -> "TradeSession":
        self._runner = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None and self._pending:
            await asyncio.wait([batch.answer for batch in self._pending.values()])
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    async def send(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[OrderResult]:
        """Sends one batch and returns its results, in its order; may be called many times at once.

        `timeout` is the time, in seconds, within which the exchange must execute it or refuse it.
        Batches are sent in the order in which their messages are ready: one task's in its order. So they are executed,
        shard by shard, except that cancels go ahead of batches that wait.

        Raises:
            NotExecuted: the batch was surely not executed.
            OutcomeUnknown: some of it may have been.
        """
        encoded = await self.encode(commands)
        results = await self.send_encoded(encoded, timeout=timeout)
        if len(results) != len(commands):
            raise self._unknown(f"expected {len(commands)} results, was {len(results)}")
        decoded: list[OrderResult] = []
        for command, result in zip(commands, results, strict=True):
            symbol = command.instrument
            scale = (await self._instruments.get(symbol)).quantity_scale if symbol else 0
            decoded.append(OrderResult.from_proto(result, symbol, scale))
        return decoded

    async def encode(self, commands: Sequence[Command]) -> list[trading_pb2.Command]:
        """For `send_encoded`: commands that are sent often, or must be ready before their time."""
        encoded: list[trading_pb2.Command] = []
        for command in commands:
            match command:
                case PlaceOrder():
                    instrument = await self._instruments.get(command.instrument)
                    encoded.append(trading_pb2.Command(place=command.to_proto(instrument)))
                case AmendOrder():
                    instrument = await self._instruments.get(command.instrument)
                    encoded.append(trading_pb2.Command(amend=command.to_proto(instrument)))
                case CancelOrder():
                    encoded.append(trading_pb2.Command(cancel=command.to_proto()))
                case CancelAllOrders():
                    encoded.append(trading_pb2.Command(cancel_all=command.to_proto()))
        return encoded

    async def send_encoded(
        self, commands: Sequence[trading_pb2.Command], *, timeout: float | None = None
    ) -> Sequence[trading_pb2.OrderResult]:
        """`send` without Decimals: the protocol's own messages, integers unscaled. The fast way."""
        if self._runner is None:
            raise ClientClosed("expected a session that was entered: `async with client.trade()`")
        clock = self._caller.environment.clock
        timeout_s = self._timeout_s if timeout is None else timeout
        deadline = clock() + timeout_s
        if self._slots.locked():
            try:
                await asyncio.wait_for(self._slots.acquire(), timeout_s)
            except TimeoutError:
                raise DeadlineExceeded("too many batches in flight until the deadline") from None
        else:
            await self._slots.acquire()
        try:
            if self._ended is not None:
                raise Unavailable(f"the session is over: {self._ended}") from self._ended
            batch = self._new_batch(commands, deadline)
            try:
                # The exchange answers at the deadline at the latest; the grace is for the way back.
                wait_s = deadline - clock() + self._grace_s
                return await asyncio.wait_for(batch.answer, wait_s)
            except TimeoutError:
                if not batch.sends:
                    raise DeadlineExceeded("no connection until the deadline") from None
                raise self._unknown("no answer within the timeout") from None
            finally:
                self._pending.pop(batch.request.request_id, None)
        finally:
            self._slots.release()

    async def outcomes(
        self, commands: Sequence[trading_pb2.Command], *, timeout: float | None = None
    ) -> Sequence[trading_pb2.OrderResult]:
        """`send_encoded` for whoever must go on whatever happens: a failure is an outcome of each command too.

        UNKNOWN, or REJECTED with the reason, which is SHARD_UNAVAILABLE where no gateway could be reached.
        """
        try:
            return await self.send_encoded(commands, timeout=timeout)
        except OutcomeUnknown:
            outcome, reason = types_pb2.OUTCOME_UNKNOWN, types_pb2.REJECT_REASON_UNSPECIFIED
        except DeadlineExceeded:
            outcome, reason = types_pb2.OUTCOME_REJECTED, types_pb2.REJECT_REASON_DEADLINE_EXCEEDED
        except NotExecuted as error:
            outcome, reason = (
                types_pb2.OUTCOME_REJECTED,
                types_pb2.RejectReason.ValueType(error.reason) or _SHARD_UNAVAILABLE,
            )
        return [
            trading_pb2.OrderResult(outcome=outcome, client_order_id=_id_of(command), reject_reason=reason)
            for command in commands
        ]

    def _new_batch(self, commands: Sequence[trading_pb2.Command], deadline: float) -> _Batch:
        self._request_id += 1
        request = trading_pb2.TradeRequest(
            request_id=self._request_id,
            commands=commands,
            cancel_on_disconnect=self._cancel_on_disconnect,
        )
        answer = asyncio.get_running_loop().create_future()
        batch = self._pending[self._request_id] = _Batch(request, deadline, answer)
        self._caller.statistics.calls += 1
        self._caller.budget.deposit()
        self._outbox.append(batch)
        self._more.set()
        return batch

    async def _run(self) -> None:
        """One connection after the other."""
        try:
            while self._ended is None:
                gateway = self._caller.channels.current
                self._connection += 1
                self._reconnect.opened()
                call: _Call = gateway.both_streams(TRADE)(metadata=self._caller.metadata)
                rpc_error, answered = await self._serve(gateway, call)
                await self._after(gateway, rpc_error, answered)
        except EvenkeelError as final:
            self._end(final)
        finally:
            # Also when the client is closed, which cancels the call.
            self._end(ClientClosed("the session was closed"))

    async def _serve(self, gateway: Gateway, call: _Call) -> tuple[grpc.aio.AioRpcError | None, bool]:
        """One connection, to its end: the error that ended it, and whether it gave any answer."""
        self._has_answered, self._leaves, self._cut_off_since = False, False, None
        self._resend_wait_s = _RESEND_WAIT_S
        self._fill_outbox()
        reader = asyncio.create_task(self._read(call))
        ends: list[asyncio.Task[Any]] = [reader]
        # A session that dies with its stream stays: its orders would be cancelled.
        if self._caller.channels.others and not self._cancel_on_disconnect:
            ends.append(asyncio.create_task(self._watch(gateway)))
        tasks = [*ends, asyncio.create_task(self._write(call))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return (await reader if reader.done() else None), self._has_answered
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()

    async def _read(self, call: _Call) -> grpc.aio.AioRpcError | None:
        try:
            async for response in call:
                self._heard += 1
                self._reconnect.heard()
                if response.draining:
                    self._leaves = True
                    self._more.set()
                    continue
                self._has_answered = True
                batch = self._pending.get(response.request_id)
                if batch is not None and not batch.answer.done():
                    batch.answer.set_result(self._certain(batch, response.results))
                self._note_cut_off(response.results)
        except grpc.aio.AioRpcError as error:
            return error
        return None

    async def _watch(self, gateway: Gateway) -> None:
        """Returns when the gateway owes answers and is silent otherwise too: it is paused, or cut off.

        A shard that is away keeps a gateway from answering as well, so the gateway itself is asked.
        """
        while True:
            heard = self._heard
            owed = {batch for batch in self._pending.values() if batch.connection == self._connection}
            await asyncio.sleep(_SILENCE_S)
            is_owing = not owed.isdisjoint(self._pending.values())
            if is_owing and heard == self._heard and await gateway.is_silent(_PROBE_S) and heard == self._heard:
                return

    def _certain(self, batch: _Batch, results: Sequence[trading_pb2.OrderResult]) -> Sequence[trading_pb2.OrderResult]:
        """The results as far as they hold for every time that the batch was sent.

        That it did not get to a shard this time says nothing of the time before, which was not answered.
        """
        if batch.sends > 1:
            for result in results:
                if result.reject_reason in _NOT_TAKEN and not result.duplicate:
                    self._caller.statistics.outcomes_unknown += 1
                    result.outcome = types_pb2.OUTCOME_UNKNOWN
                    result.reject_reason = types_pb2.REJECT_REASON_UNSPECIFIED
        return results

    async def _write(self, call: _Call) -> None:
        clock = self._caller.environment.clock
        while True:
            while self._outbox and not self._leaves:
                batch = self._outbox.popleft()
                if batch.answer.done() or (batch.sends and not await self._may_resend(batch)) or self._leaves:
                    continue
                remaining_ms = int((batch.deadline - clock()) * _MS)
                if remaining_ms <= 0:
                    self._give_up(batch, "no connection until the deadline")
                    continue
                batch.request.deadline_ms = remaining_ms
                batch.sends += 1
                batch.connection = self._connection
                self._last_sent_id = max(self._last_sent_id, batch.request.request_id)
                self._caller.statistics.attempts += 1
                await call.write(batch.request)
            if self._leaves:
                await call.done_writing()
                return
            self._more.clear()
            await self._more.wait()

    async def _after(self, gateway: Gateway, rpc_error: grpc.aio.AioRpcError | None, answered: bool) -> None:
        """Makes of a connection's end what it means for the batches, and waits for the next one."""
        error = None if rpc_error is None else from_rpc_error(rpc_error)
        sent_on_it = [batch for batch in self._pending.values() if batch.connection == self._connection]
        drained = isinstance(error, NotExecuted) and error.reason_name == GATEWAY_DRAINING
        refused = isinstance(error, NotExecuted) and not answered
        if error is not None and (refused or drained):
            # The stream was refused as a whole, or all that was taken is answered: the rest was not executed.
            for batch in sent_on_it:
                batch.sends -= 1
                if not error.worth_retrying and not batch.sends and not batch.answer.done():
                    batch.answer.set_exception(error)
        if self._cancel_on_disconnect and not refused and (answered or sent_on_it):
            lost = error or TransportError("the server ended the stream")
            self._caller.note_failure(gateway, lost)
            raise lost
        await self._reconnect.broken(gateway, rpc_error)
        self.reconnects += 1

    def _fill_outbox(self) -> None:
        """With what a new connection shall send: all that has no answer, where that is safe."""
        self._outbox.clear()
        for batch in list(self._pending.values()):
            if batch.answer.done():
                continue
            if batch.sends:
                if batch.deadline <= self._caller.environment.clock():
                    self._give_up(batch, "no connection until the deadline")
                    continue
                latest = batch.request.request_id == self._last_sent_id
                if self._cancel_on_disconnect or not (latest or batch.repeatable_at_any_time):
                    self._give_up(batch, "the connection broke, and sending it again is not safe")
                    continue
            self._outbox.append(batch)
        self._more.set()

    async def _may_resend(self, batch: _Batch) -> bool:
        """Takes a retry out of the budget, waiting a little for one; gives the batch up if there is none."""
        environment = self._caller.environment
        while not self._caller.budget.withdraw():
            can_wait = self._caller.policy.budget_max >= 1 and self._resend_wait_s > 0
            if not can_wait or batch.deadline <= environment.clock():
                self._caller.statistics.retries_refused += 1
                self._give_up(batch, "the connection broke, and the retry budget is spent")
                return False
            self._resend_wait_s -= _RESEND_STEP_S
            await environment.sleep(_RESEND_STEP_S)
        return not batch.answer.done()

    def _note_cut_off(self, results: Sequence[trading_pb2.OrderResult]) -> None:
        """Leaves a gateway at which no shard has been found for some time."""
        now = self._caller.environment.clock()
        if not results or any(result.reject_reason != _SHARD_UNAVAILABLE for result in results):
            self._cut_off_since = None
        elif self._cut_off_since is None:
            self._cut_off_since = now
        elif now - self._cut_off_since >= _LEAVE_AFTER_S and self._caller.channels.others:
            self._cut_off_since = None
            # A session that dies with its stream stays: its orders would be cancelled.
            self._leaves = not self._cancel_on_disconnect
            self._more.set()

    def _give_up(self, batch: _Batch, why: str) -> None:
        if batch.answer.done():
            return
        error = self._unknown(why) if batch.sends else DeadlineExceeded(why)
        batch.answer.set_exception(error)

    def _end(self, error: EvenkeelError) -> None:
        if self._ended is None:
            self._ended = error
        for batch in list(self._pending.values()):
            if batch.answer.done():
                continue
            if batch.sends:
                unknown = self._unknown(f"the session ended: {error}")
                unknown.__cause__ = error
                batch.answer.set_exception(unknown)
            else:
                batch.answer.set_exception(Unavailable(f"the session ended: {error}"))

    def _unknown(self, why: str) -> OutcomeUnknown:
        self._caller.statistics.outcomes_unknown += 1
        return OutcomeUnknown(f"Trade: some of the batch may have been executed: {why}")


def _id_of(command: trading_pb2.Command) -> str:
    """The client order id of the order that a command is about, where it names one."""
    match command.WhichOneof("command"):
        case "place":
            return command.place.client_order_id
        case "amend":
            return command.amend.client_order_id
        case "cancel":
            return command.cancel.client_order_id
        case _:
            return ""
