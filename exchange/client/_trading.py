"""The trading half of a client: orders in, outcomes out."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from exchange.client._call import Caller, Effect
from exchange.client._commands import (
    AmendOrder,
    CancelAllOrders,
    CancelOrder,
    PlaceOrder,
    new_client_order_id,
)
from exchange.client._enums import OrderType, SelfTradePrevention, Side, TimeInForce
from exchange.client._instruments import InstrumentCache
from exchange.client._numbers import Number
from exchange.client._orders import OrderEntry
from exchange.client._results import CancelAllResult, DeadMansSwitch, Execution, Order, OrderResult
from exchange.client._rpcs import CANCEL_ALL_AFTER, CANCEL_ALL_ORDERS, GET_ORDER, LIST_ORDERS
from exchange.client._session import TradeSession
from exchange.client._streams import Stream, Streams
from exchange.v1 import trading_pb2


class TradingMethods:
    """Orders of the account that the API key belongs to.

    A method that enters a command returns an OrderResult, rejected or not; it raises NotExecuted where
    the exchange never took the command, and OutcomeUnknown where that could not be found out.
    """

    _caller: Caller
    _instruments: InstrumentCache
    _orders: OrderEntry
    _streams: Streams

    async def place_order(
        self,
        instrument: str,
        side: Side,
        quantity: Number,
        price: Number | None = None,
        *,
        order_type: OrderType = OrderType.LIMIT,
        time_in_force: TimeInForce = TimeInForce.UNSPECIFIED,
        post_only: bool = False,
        self_trade_prevention: SelfTradePrevention = SelfTradePrevention.UNSPECIFIED,
        expire_time: datetime | None = None,
        queue_for: float = 0.0,
        client_order_id: str | None = None,
        timeout: float | None = None,
    ) -> OrderResult:
        """Enters an order; fields as in `PlaceOrder`.

        An order that its market's money does not cover waits for the rest, which is a matter of milliseconds.
        Should that take longer than the exchange holds the answer back, the result is `pending` (status
        PENDING_FUNDS): taken, but not in the book yet. Executions and `get_order` then tell what became of it.
        An order that the account cannot pay is a result too: rejected, INSUFFICIENT_FUNDS.

        `timeout` bounds all attempts together, in seconds. Without one, it is the client's, and
        `queue_for` on top.
        """
        order = PlaceOrder(
            instrument=instrument,
            side=side,
            quantity=quantity,
            price=price,
            order_type=order_type,
            time_in_force=time_in_force,
            post_only=post_only,
            self_trade_prevention=self_trade_prevention,
            expire_time=expire_time,
            queue_for=queue_for,
            client_order_id=new_client_order_id() if client_order_id is None else client_order_id,
        )
        return await self._orders.place(order, timeout)

    async def place_orders(self, orders: Sequence[PlaceOrder], *, timeout: float | None = None) -> list[OrderResult]:
        """Enters many at once, each with its own outcome, in their order.

        Unlike `place_order` it leaves an unknown outcome in its result (`unknown`) rather than hide
        the others behind an error.
        """
        return await self._orders.place_all(orders, timeout)

    async def amend_order(
        self,
        instrument: str,
        client_order_id: str = "",
        *,
        order_id: int = 0,
        price: Number | None = None,
        quantity: Number | None = None,
        open_quantity: Number | None = None,
        requeue: bool = False,
        cancel_on_fail: bool = False,
        timeout: float | None = None,
    ) -> OrderResult:
        """Changes an open order, named by either id; fields as in `AmendOrder`."""
        amend = AmendOrder(
            instrument=instrument,
            client_order_id=client_order_id,
            order_id=order_id,
            price=price,
            quantity=quantity,
            open_quantity=open_quantity,
            requeue=requeue,
            cancel_on_fail=cancel_on_fail,
        )
        return await self._orders.amend(amend, timeout)

    async def cancel_order(
        self,
        instrument: str,
        client_order_id: str = "",
        *,
        order_id: int = 0,
        timeout: float | None = None,
    ) -> OrderResult:
        """Cancels an open order, named by either id.

        After a lost answer the result can be a rejection ORDER_CLOSED: the first attempt did it.
        """
        cancel = CancelOrder(instrument=instrument, client_order_id=client_order_id, order_id=order_id)
        return await self._orders.cancel(cancel, timeout)

    async def cancel_all_orders(
        self,
        instrument: str = "",
        side: Side = Side.UNSPECIFIED,
        *,
        timeout: float | None = None,
    ) -> CancelAllResult:
        """Cancels all orders; of one instrument or side, if it is named."""
        response = await self._caller.call(
            CANCEL_ALL_ORDERS,
            CancelAllOrders(instrument=instrument, side=side).to_proto(),
            effect=Effect.SAME,
            timeout=timeout,
        )
        return CancelAllResult(response.cancelled_orders, tuple(response.unavailable_shards))

    async def cancel_all_after(self, delay: float, *, timeout: float | None = None) -> DeadMansSwitch:
        """The dead man's switch: in `delay` seconds (1 to 600) all orders of the account are
        cancelled, unless this is called again before. 0 disarms it."""
        response = await self._caller.call(
            CANCEL_ALL_AFTER,
            trading_pb2.CancelAllAfterRequest(timeout_ms=round(delay * 1000)),
            effect=Effect.SAME,
            timeout=timeout,
        )
        return DeadMansSwitch(response.trigger_time_ns, tuple(response.unavailable_shards))

    async def get_order(
        self,
        instrument: str,
        client_order_id: str = "",
        *,
        order_id: int = 0,
        timeout: float | None = None,
    ) -> Order:
        """One order, by either id. Raises NotFound if the shard knows none."""
        name = CancelOrder(instrument=instrument, client_order_id=client_order_id, order_id=order_id)
        request = trading_pb2.GetOrderRequest(
            instrument=name.instrument, client_order_id=name.client_order_id, order_id=order_id
        )
        scales = await self._instruments.get(instrument)
        response = await self._caller.call(GET_ORDER, request, timeout=timeout)
        return Order.from_proto(response.order, scales)

    async def list_orders(
        self,
        instrument: str = "",
        *,
        include_closed: bool = False,
        limit: int | None = None,
        page_size: int = 100,
        timeout: float | None = None,
    ) -> AsyncIterator[Order]:
        """The account's open orders, page by page as they are read; at most `limit`.

        `timeout` is for each page.
        """
        token, left = "", limit
        while left is None or left > 0:
            request = trading_pb2.ListOrdersRequest(
                instrument=instrument,
                include_closed=include_closed,
                page_size=page_size if left is None else min(page_size, left),
                page_token=token,
            )
            response = await self._caller.call(LIST_ORDERS, request, timeout=timeout)
            for message in response.orders[:left]:
                yield Order.from_proto(message, await self._instruments.get(message.instrument))
            token = response.next_page_token
            if not token:
                return
            if left is not None:
                left -= len(response.orders)

    def stream_executions(self, after: Mapping[str, int] | None = None) -> Stream[Execution]:
        """What becomes of the account's orders, by anyone's doing.

        Each comes once, whatever becomes of the connection. `after` goes on where an earlier stream was:
        its `position`, shard → sequence; shards that it does not name start with what happens next. The
        executions of the last command that the earlier stream saw may then come again: they are known
        by (shard, sequence, order id, type, trade id).

        Raises (while it is read):
            GapDetected: what happened since is no longer held. Read the state with
                `list_orders(include_closed=True)`, and start again without `after`.
        """
        return self._streams.executions(after)

    def trade(
        self,
        *,
        cancel_on_disconnect: bool = False,
        timeout: float | None = None,
        in_flight_max: int = 64,
    ) -> TradeSession:
        """A session for many commands: `async with client.trade() as session`.

        `cancel_on_disconnect`: the exchange cancels the session's orders when it ends, for whatever
        reason. `timeout`: of a batch, at most 5 s. `in_flight_max`: batches that are sent and not
        answered; `send` waits for a place. `TradeSession` says what a lost connection does.
        """
        return TradeSession(
            self._caller,
            self._instruments,
            self._streams.reconnect("Trade"),
            cancel_on_disconnect=cancel_on_disconnect,
            timeout=self._caller.timeout if timeout is None else timeout,
            grace=self._orders.settle_timeout_s,
            in_flight_max=in_flight_max,
        )
