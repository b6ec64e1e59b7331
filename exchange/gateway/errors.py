"""gRPC errors that a program can read: google.rpc.Status with ErrorInfo and, where coming back helps, RetryInfo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from exchange.engine.words import RejectReason
from exchange.overload.pushback import trailer_ms

DOMAIN = "evenkeel"
UNAVAILABLE_RETRY_MS = 500

_CODES = {
    RejectReason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    RejectReason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RejectReason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RejectReason.SHARD_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    RejectReason.JOURNAL_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    RejectReason.FUNDS_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    RejectReason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
}


def code_of(reason: RejectReason) -> grpc.StatusCode:
    """Return the gRPC code of a reason that is answered as an error: a stage or a state of the exchange."""
    return _CODES.get(reason, grpc.StatusCode.FAILED_PRECONDITION)


async def abort(
    context: Any,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    retry_after_ms: int | None = None,
    metadata: Mapping[str, str] | None = None,
    trailers: Sequence[tuple[str, str]] = (),
) -> NoReturn:
    """End the call with an error. `retry_after_ms` tells when to come back; negative: not at all.

    gRPC's own retry is told not to, where it would wait beyond the deadline; RetryInfo has the time all the same.
    """
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=dict(metadata or {}))
    details = [_any(info)]
    sent: list[tuple[str, str | bytes]] = [*trailers]
    if retry_after_ms is not None:
        remaining_s = context.time_remaining()
        remaining_ms = None if remaining_s is None else remaining_s * 1_000
        sent.append(("grpc-retry-pushback-ms", str(trailer_ms(retry_after_ms, remaining_ms))))
        if retry_after_ms >= 0:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(retry_after_ms)
            details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=code.value[0], message=message, details=details)
    sent.append(("grpc-status-details-bin", status.SerializeToString()))
    await context.abort(code, message, tuple(sent))
    raise AssertionError("abort returns never")


async def abort_as_starting(context: Any, message: str) -> NoReturn:
    """End a call that cannot be answered yet: what the gateway has to know for it comes in a moment."""
    await abort(context, grpc.StatusCode.UNAVAILABLE, "STARTING", message, UNAVAILABLE_RETRY_MS)


def _any(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
