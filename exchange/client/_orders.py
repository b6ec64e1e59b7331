"""Entering orders so that each gets one true outcome.

Every command may be sent again after an outcome that stayed unknown, because none of them does more the
second time: an order is placed under its client order id, which the exchange executes once; an amend names
absolute values, not differences; a cancel of what is cancelled changes nothing.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TypeVar

from exchange.client._call import Caller, Effect, cut_off
from exchange.client._commands import AmendOrder, CancelOrder, PlaceOrder
from exchange.client._enums import RejectReason
from exchange.client._errors import EvenkeelError, NotExecuted, OutcomeUnknown
from exchange.client._instruments import InstrumentCache
from exchange.client._results import OrderResult
from exchange.client._retry import Attempts, Failure
from exchange.client._rpcs import (
    AMEND_ORDER,
    CANCEL_ORDER,
    GET_ORDER,
    PLACE_ORDER,
    PLACE_ORDERS,
    RequestT,
    Rpc,
)
from exchange.v1 import trading_pb2, types_pb2

_REJECTED = types_pb2.OUTCOME_REJECTED
_UNKNOWN = types_pb2.OUTCOME_UNKNOWN


_ResponseT = TypeVar(
    "_ResponseT",
    trading_pb2.PlaceOrderResponse,
    trading_pb2.AmendOrderResponse,
    trading_pb2.CancelOrderResponse,
)


class OrderEntry:
    """Places, amends and cancels, each with the retries and the last question that its outcome needs."""

    def __init__(self, caller: Caller, instruments: InstrumentCache, settle_timeout: float) -> None:
        self._caller = caller
        self._instruments = instruments
        self.settle_timeout_s = settle_timeout

    async def place(self, order: PlaceOrder, timeout: float | None) -> OrderResult:
        instrument = await self._instruments.get(order.instrument)
        request = order.to_proto(instrument)
        if timeout is None:
            # An order that may wait for its shard has its usual time on top.
            timeout = self._caller.timeout + order.queue_for

        def is_it(found: types_pb2.Order) -> bool:
            # Another one under the same id would have made this one a CLIENT_ORDER_ID_REUSED.
            return (found.side, found.type, found.price, found.quantity) == (
                request.side,
                request.type,
                request.price,
                request.quantity,
            )

        name = _name(request.instrument, request.client_order_id)
        result = await self._settled(PLACE_ORDER, request, name, is_it, timeout)
        return OrderResult.from_proto(result, instrument.symbol, instrument.quantity_scale)

    async def amend(self, amend: AmendOrder, timeout: float | None) -> OrderResult:
        instrument = await self._instruments.get(amend.instrument)
        request = amend.to_proto(instrument)

        def is_amended(found: types_pb2.Order) -> bool:
            return (
                request.price in (0, found.price)
                and request.quantity in (0, found.quantity)
                and request.open_quantity in (0, found.open_quantity)
                and not request.requeue
            )

        name = _name(request.instrument, request.client_order_id, request.order_id)
        result = await self._settled(AMEND_ORDER, request, name, is_amended, timeout)
        return OrderResult.from_proto(result, instrument.symbol, instrument.quantity_scale)

    async def cancel(self, cancel: CancelOrder, timeout: float | None) -> OrderResult:
        instrument = await self._instruments.get(cancel.instrument)

        def is_closed(found: types_pb2.Order) -> bool:
            return found.status not in (types_pb2.ORDER_STATUS_OPEN, types_pb2.ORDER_STATUS_PENDING_FUNDS)

        name = _name(cancel.instrument, cancel.client_order_id, cancel.order_id)
        result = await self._settled(CANCEL_ORDER, cancel.to_proto(), name, is_closed, timeout)
        return OrderResult.from_proto(result, instrument.symbol, instrument.quantity_scale)

    async def place_all(self, orders: Sequence[PlaceOrder], timeout: float | None) -> list[OrderResult]:
        """Each order's own outcome, in their order.

        A later attempt carries only the orders that are open or may come back. What is still unknown
        at the end stays UNKNOWN: asking for each would multiply the load just when it is too high.
        """
        instruments = [await self._instruments.get(order.instrument) for order in orders]
        requests = [order.to_proto(instrument) for order, instrument in zip(orders, instruments, strict=True)]
        if timeout is None:
            queue_for_s = max((order.queue_for for order in orders), default=0.0)
            timeout = self._caller.timeout + queue_for_s
        attempts = self._caller.attempts(timeout)
        results = await self._results(requests, attempts)
        return [
            OrderResult.from_proto(result, instrument.symbol, instrument.quantity_scale)
            for instrument, result in zip(instruments, results, strict=True)
        ]

    async def _results(
        self, requests: Sequence[trading_pb2.PlaceOrderRequest], attempts: Attempts
    ) -> list[trading_pb2.OrderResult]:
        results: dict[int, trading_pb2.OrderResult] = {}
        unknown: set[int] = set()
        pending = list(range(len(requests)))
        while pending:
            batch = trading_pb2.PlaceOrdersRequest(orders=[requests[index] for index in pending])
            attempts.open = False  # of this call; `unknown` has what earlier ones left open
            try:
                response = await self._caller.call(PLACE_ORDERS, batch, effect=Effect.SAME, attempts=attempts)
                answers = list(response.results)
            except NotExecuted:
                if not results:
                    raise
                break  # it changes nothing about what earlier calls told
            except OutcomeUnknown:
                answers = []
            if attempts.open or len(answers) != len(pending):
                unknown.update(pending)
            for index, answer in zip_longest(pending, answers[: len(pending)]):
                told = answer is not None and not (index in unknown and _refused_for_now(answer))
                results[index] = answer if told else _unknown_result(requests[index].client_order_id)
                if results[index].outcome == _UNKNOWN:
                    unknown.add(index)
            if not answers:
                break
            failures = {index: _failure_of(results[index]) for index in pending}
            pending = [index for index, failure in failures.items() if failure.worth_retrying]
            hint_s = max(failure.retry_after_s or 0.0 for failure in failures.values())
            elsewhere = all(failures[index].elsewhere for index in pending)
            if not await self._caller.again(attempts, Failure(bool(pending), hint_s, bool(pending) and elsewhere)):
                break
        return [results[index] for index in range(len(requests))]

    async def _settled(
        self,
        rpc: Rpc[RequestT, _ResponseT],
        request: RequestT,
        name: trading_pb2.GetOrderRequest,
        is_done: Callable[[types_pb2.Order], bool],
        timeout: float | None,
    ) -> trading_pb2.OrderResult:
        """The result of one command; if it stays unknown, what the order itself tells.

        Raises:
            NotExecuted: surely.
            OutcomeUnknown: neither attempts nor order told.
        """
        attempts = self._caller.attempts(timeout)
        try:
            return await self._result(rpc, request, attempts)
        except OutcomeUnknown as unknown:
            order = await self._ask(name)
            if order is not None and is_done(order):
                return _result_of(order)
            unknown.instrument = name.instrument
            unknown.client_order_id = name.client_order_id
            raise

    async def _result(
        self, rpc: Rpc[RequestT, _ResponseT], request: RequestT, attempts: Attempts
    ) -> trading_pb2.OrderResult:
        while True:
            response = await self._caller.call(rpc, request, effect=Effect.SAME, attempts=attempts)
            result = response.result
            attempts.open |= result.outcome == _UNKNOWN
            if await self._caller.again(attempts, _failure_of(result)):
                continue
            # A refusal for the moment's sake does not say that an earlier attempt was not executed.
            if attempts.open and (result.outcome == _UNKNOWN or _refused_for_now(result)):
                raise self._caller.unknown(rpc.name, attempts, None)
            return result

    async def _ask(self, name: trading_pb2.GetOrderRequest) -> types_pb2.Order | None:
        """The order, if one question finds it. It costs a retry: it is load that failure makes."""
        if not self._caller.budget.withdraw():
            self._caller.statistics.retries_refused += 1
            return None
        question = self._caller.attempts(self.settle_timeout_s)
        try:
            response = await self._caller.attempt(GET_ORDER, name, question)
        except EvenkeelError:
            # Not even "not found" is a proof: the order may still be on its way.
            return None
        return response.order if response.HasField("order") else None


def _name(instrument: str, client_order_id: str, order_id: int = 0) -> trading_pb2.GetOrderRequest:
    return trading_pb2.GetOrderRequest(instrument=instrument, client_order_id=client_order_id, order_id=order_id)


def _failure_of(result: trading_pb2.OrderResult) -> Failure:
    if result.outcome == _UNKNOWN:
        return Failure(worth_retrying=True)
    # A duplicate is the first outcome told again, and will be so each time.
    if result.outcome == _REJECTED and result.retry_after_ms > 0 and not result.duplicate:
        elsewhere = cut_off(RejectReason(result.reject_reason).name)
        return Failure(True, result.retry_after_ms / 1000, elsewhere)
    return Failure(worth_retrying=False)


def _refused_for_now(result: trading_pb2.OrderResult) -> bool:
    return result.outcome == _REJECTED and RejectReason(result.reject_reason).passes


def _unknown_result(client_order_id: str) -> trading_pb2.OrderResult:
    return trading_pb2.OrderResult(outcome=_UNKNOWN, client_order_id=client_order_id)


def _result_of(order: types_pb2.Order) -> trading_pb2.OrderResult:
    """What the answer that was lost said, as far as the order tells."""
    rejected = order.status == types_pb2.ORDER_STATUS_REJECTED
    return trading_pb2.OrderResult(
        outcome=_REJECTED if rejected else types_pb2.OUTCOME_ACKNOWLEDGED,
        client_order_id=order.client_order_id,
        order_id=order.order_id,
        status=order.status,
        filled_quantity=order.filled_quantity,
        open_quantity=order.open_quantity,
        reject_reason=order.reject_reason,
        close_reason=order.close_reason,
        duplicate=True,
    )
