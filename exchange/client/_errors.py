"""The errors of the SDK.

    EvenkeelError
    ├── InvalidNumber          (a ValueError) a price, quantity or amount that cannot be meant; nothing was sent
    ├── NotExecuted            the exchange, or nobody, took the request: surely not executed
    │   ├── Overloaded         backpressure or a rate limit; `retry_after` says when to come back
    │   ├── StageForbids       the shard's stage does not let it through
    │   ├── Unavailable        the part that is needed is away, or no address could be connected to
    │   ├── DeadlineExceeded   it expired before it was executed
    │   ├── InvalidArgument    it can never be executed as it is
    │   │   └── UnknownInstrument
    │   ├── NotFound           what it names does not exist
    │   ├── AlreadyExists      what it names is there already, with other content
    │   ├── InsufficientFunds  the account has less than it takes
    │   ├── Unauthenticated    the API key is missing, not known, expired or revoked
    │   └── PermissionDenied   the API key may not do this, or not from this address
    ├── OutcomeUnknown         a command may or may not have been executed, and it could not be found out
    ├── TransportError         a question got no answer: the connection broke
    │   └── TimedOut
    ├── OrderRejected          from `OrderResult.raise_for_reject()`
    ├── GapDetected            a stream cannot be continued without a hole
    │   └── ChecksumMismatch   a local order book differs from the exchange's
    └── ClientClosed

`NotExecuted.reason_name` says why in one word, such as "ASSET_UNKNOWN". A rejected order is no error: the
exchange did its work, and the `OrderResult` says so.
"""

from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from exchange.client._enums import RejectReason

if TYPE_CHECKING:
    from exchange.client._results import OrderResult

_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_REASON_PREFIX = "REJECT_REASON_"
_STAGE_PREFIX = "STAGE_"
_OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
GATEWAY_DRAINING = "GATEWAY_DRAINING"
"""Of a gateway that is about to stop. It has not taken the call; of a stream, it has answered all that it took."""


class EvenkeelError(Exception):
    """Whatever this SDK raises, but for errors in its use (TypeError, ValueError)."""


class InvalidNumber(EvenkeelError, ValueError):
    """A price, quantity or amount with more digits than its scale, not positive, or not a number."""


class NotExecuted(EvenkeelError):
    """The request was surely not executed, and never will be."""

    def __init__(
        self,
        message: str,
        *,
        reason: RejectReason = RejectReason.UNSPECIFIED,
        reason_name: str = "",
        retry_after: float | None = None,
        code: grpc.StatusCode | None = None,
        worth_retrying: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """Why, as an order would be told it; UNSPECIFIED where it is none of these."""
        self.reason_name = reason_name or (reason.name if reason else "")
        """Why, as the exchange names it: a RejectReason's name, or one that no order knows, such as
        "REFERENCE_REUSED" or "KEY_EXPIRED". Empty where it did not say."""
        self.retry_after = retry_after
        """Seconds after which coming back may help, as the exchange says it. None: it does not."""
        self.code = code
        self.worth_retrying = worth_retrying
        """Whether trying again may help: the exchange said so, or no gateway was reached."""


class Overloaded(NotExecuted):
    """Backpressure or a rate limit (RESOURCE_EXHAUSTED)."""


class StageForbids(NotExecuted):
    """The shard's stage does not let it through (FAILED_PRECONDITION)."""


class Unavailable(NotExecuted):
    """The part that is needed is away (UNAVAILABLE)."""


class DeadlineExceeded(NotExecuted):
    """It expired before it was executed (DEADLINE_EXCEEDED)."""


class InvalidArgument(NotExecuted):
    """It can never be executed as it is (INVALID_ARGUMENT)."""


class UnknownInstrument(InvalidArgument):
    """The exchange lists no instrument of this name."""


class NotFound(NotExecuted):
    """What it names does not exist (NOT_FOUND)."""


class AlreadyExists(NotExecuted):
    """What it names is there already, with other content (ALREADY_EXISTS).

    A repeat with the same content is no error: it returns what is there.
    """


class InsufficientFunds(NotExecuted):
    """The account has less available than it takes (INSUFFICIENT_FUNDS)."""


class Unauthenticated(NotExecuted):
    """The API key is missing, not known, expired or revoked (UNAUTHENTICATED)."""


class PermissionDenied(NotExecuted):
    """The API key may not do this, or not from this address (PERMISSION_DENIED)."""


class OutcomeUnknown(EvenkeelError):
    """A command may or may not have been executed.

    An order: send it again with the same client order id, or ask with `get_order`. A deposit, withdrawal or
    transfer: send it again with the same reference. Each gives the truth. The cause (`__cause__`) says what
    went wrong.
    """

    def __init__(self, message: str, *, instrument: str = "", client_order_id: str = "", reference: str = "") -> None:
        super().__init__(message)
        self.instrument = instrument
        self.client_order_id = client_order_id
        """Of the order, where the command was about one and named it so."""
        self.reference = reference
        """Of the deposit, withdrawal or transfer, also where it was made up."""


class TransportError(EvenkeelError):
    """The connection broke before there was an answer."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        code: grpc.StatusCode | None = None,
        worth_retrying: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds, where the server asked for a wait."""
        self.code = code
        self.worth_retrying = worth_retrying


class TimedOut(TransportError):
    """There was no answer within the timeout."""


class OrderRejected(EvenkeelError):
    """An order was rejected: surely not executed. `result` has the reason."""

    def __init__(self, result: "OrderResult") -> None:
        super().__init__(f"order {result.client_order_id!r} rejected: {result.reject_reason.name}")
        self.result = result


class GapDetected(EvenkeelError):
    """A stream cannot be continued without a hole.

    Of executions: what happened after `position` is no longer held. Read the state with
    `list_orders(include_closed=True)`, and start a new stream without `after`. Of balances: read them with
    `balances()`, and go on after their `sequence`.
    """

    def __init__(self, message: str, *, position: dict[str, int] | None = None) -> None:
        super().__init__(message)
        self.position = position or {}
        """Shard, or "ledger" of balances → last sequence seen."""


class ChecksumMismatch(GapDetected):
    """A local order book differs from the exchange's."""


class ClientClosed(EvenkeelError):
    """The client was closed."""


_BY_REASON: dict[str, type[NotExecuted]] = {
    "ORDER_UNKNOWN": NotFound,
    "INSUFFICIENT_FUNDS": InsufficientFunds,
}
_BY_CODE: dict[grpc.StatusCode, type[NotExecuted]] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}

# Without an ErrorInfo these may come from gRPC itself, on this side or the other, after the request
# was taken. RESOURCE_EXHAUSTED too, but only for an answer larger than any that a command has.
_OPEN_CODES = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

# gRPC's own words when it found no connection to send on. Should they ever change, the error becomes
# one whose outcome is unknown: wrong on the safe side.
_CONNECT_FAILED = "failed to connect to all addresses"


def from_rpc_error(error: grpc.aio.AioRpcError) -> NotExecuted | TransportError:
    """What a gRPC error means for the request.

    An ErrorInfo proves that the exchange made the error, hence that nothing was executed, unless it says
    that not even the exchange knows. The `grpc-retry-pushback-ms` trailer outranks RetryInfo; negative
    means: do not come back within this call, and RetryInfo still says when it may help.
    """
    code = error.code()
    info, retry_after = _details(error)
    pushback = _pushback_s(error)
    forbidden = pushback is not None and pushback < 0
    if pushback is not None and not forbidden:
        retry_after = pushback
    text = error.details() or ""
    message = f"{code.name}: {text}" if text else code.name
    reason_name = "" if info is None else info.reason.removeprefix(_REASON_PREFIX)
    if (info is None and code in _OPEN_CODES) or reason_name == _OUTCOME_UNKNOWN:
        if code is grpc.StatusCode.UNAVAILABLE and text.startswith(_CONNECT_FAILED):
            return Unavailable(message, retry_after=retry_after, code=code, worth_retrying=not forbidden)
        timed_out = code is grpc.StatusCode.DEADLINE_EXCEEDED
        transport_error = TimedOut if timed_out else TransportError
        return transport_error(message, retry_after=retry_after, code=code, worth_retrying=not forbidden)

    if reason_name and reason_name not in text:
        message = f"{message} ({reason_name})"
    return _kind(code, reason_name)(
        message,
        # A name that this SDK does not know, of a newer exchange or of no order, is kept as a name.
        reason=RejectReason.__members__.get(reason_name, RejectReason.UNSPECIFIED),
        reason_name=reason_name,
        retry_after=retry_after,
        code=code,
        worth_retrying=retry_after is not None and not forbidden,
    )


def forbids_return(error: grpc.aio.AioRpcError) -> bool:
    """Whether the server said, by a negative pushback, not to come back."""
    pushback = _pushback_s(error)
    return pushback is not None and pushback < 0


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has all that is read
    except (ValueError, DecodeError):
        return None, None  # not a google.rpc.Status, or not of this error: as good as none
    info: error_details_pb2.ErrorInfo | None = None
    retry_after: float | None = None
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
    return info, retry_after


def _pushback_s(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == _PUSHBACK_KEY:
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0  # gRPC A6: a pushback that cannot be read means do not retry
    return None


def _kind(code: grpc.StatusCode, reason_name: str) -> type[NotExecuted]:
    # FAILED_PRECONDITION is said of stages, and of much else.
    if code is grpc.StatusCode.FAILED_PRECONDITION and reason_name.startswith(_STAGE_PREFIX):
        return StageForbids
    return _BY_REASON.get(reason_name) or _BY_CODE.get(code, NotExecuted)
