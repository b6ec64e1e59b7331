"""How clients that do without the SDK's budget try again: never, by back-off, or whatever they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chaos.load.attempts import Told
from chaos.load.client_log import ACKNOWLEDGED, UNKNOWN
from chaos.load.plan import Retry
from exchange.v1 import types_pb2

ATTEMPTS_MAX = 8
"""Of a client without a budget: one that is slow in giving up."""
BACKOFF_S_BASE, BACKOFF_S_MAX = 0.1, 2.0
IGNORED_PUSHBACK_S = 0.05
"""Between the attempts of who does not care when it is asked to come back."""
WHY_CHARACTERS_MAX = 200
REASONS_THAT_PASS = 500
"""Reject reasons from here on say something of the moment: not executed, and worth trying again."""
_OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
_REASON_PREFIX = "REJECT_REASON_"
_CONNECT_FAILED = "failed to connect to all addresses"
_OPEN_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
_FINAL_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What a gRPC error says of a command."""

    reason: str
    is_open: bool
    """It may have been executed."""
    is_final: bool
    """Whoever asks again gets the same answer."""
    retry_after_s: float | None


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """Return what an error means: one that the exchange made says why (ErrorInfo), and that nothing was executed."""
    code, info, retry_after_s = error.code(), None, None
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has all that is read
    except (ValueError, DecodeError):
        status = None
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after_s = delay.seconds + delay.nanos / 1e9
    reason = code.name if info is None else info.reason.removeprefix(_REASON_PREFIX)
    never_left = code is grpc.StatusCode.UNAVAILABLE and (error.details() or "").startswith(_CONNECT_FAILED)
    is_open = reason == _OUTCOME_UNKNOWN or (info is None and code in _OPEN_CODES and not never_left)
    return Failure(reason, is_open, code in _FINAL_CODES, retry_after_s)


def wait_s(retry: Retry, attempt: int, asked_s: float | None, random: Callable[[], float]) -> float | None:
    """Return how long a client waits after its attempt number `attempt`; None: it gives up.

    `backoff` waits for a time with full jitter, and for what it was asked; the others do not listen.
    """
    if retry == "none" or attempt >= ATTEMPTS_MAX:
        return None
    match retry:
        case "naive":
            return 0.0
        case "ignores-pushback":
            return IGNORED_PUSHBACK_S
        case _:
            return max(random() * min(BACKOFF_S_BASE * 2.0**attempt, BACKOFF_S_MAX), asked_s or 0.0)


async def insist(
    retry: Retry, once: Callable[[], Awaitable[tuple[Told, Failure | None]]], random: Callable[[], float]
) -> Told:
    """Make an attempt, and others as the profile has it; return what the client knows in the end."""
    maybe_executed = False
    attempt = 0
    while True:
        attempt += 1
        told, failure = await once()
        if told.outcome == ACKNOWLEDGED or 0 < told.line.get("rej", 0) < REASONS_THAT_PASS:
            return told
        maybe_executed |= told.outcome == UNKNOWN
        if failure is not None and failure.is_final:
            break
        pause_s = wait_s(retry, attempt, None if failure is None else failure.retry_after_s, random)
        if pause_s is None:
            break
        await asyncio.sleep(pause_s)
    # One attempt may have taken effect, whatever the last one was told.
    return told._replace(outcome=UNKNOWN) if maybe_executed else told


def reason_name(reason: int) -> str:
    """Return the name of a reject reason; "" of none."""
    if not reason:
        return ""
    return types_pb2.RejectReason.Name(types_pb2.RejectReason.ValueType(reason)).removeprefix(_REASON_PREFIX)
