import grpc
import pytest

from exchange.client import (
    AsyncClient,
    DeadlineExceeded,
    EvenkeelError,
    InvalidArgument,
    NotExecuted,
    NotFound,
    Overloaded,
    PermissionDenied,
    RejectReason,
    RetryPolicy,
    StageForbids,
    TimedOut,
    TransportError,
    Unauthenticated,
    Unavailable,
    UnknownInstrument,
)
from tests.client.fake_gateway import LOST, FakeGateway, Hang, Refusal, VirtualTime

Code = grpc.StatusCode


async def error_of(gateway: FakeGateway, step: Refusal | Hang, timeout: float = 1.0) -> EvenkeelError:
    """What a question without retries raises."""
    gateway.script("GetStatus", step)
    policy = RetryPolicy(attempts_max=1)
    async with AsyncClient(gateway.address, retry=policy, environment=VirtualTime().environment) as client:
        with pytest.raises(EvenkeelError) as caught:
            await client.status(timeout=timeout)
    return caught.value


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", Overloaded),
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", Overloaded),
        (Code.FAILED_PRECONDITION, "STAGE_CANCEL_ONLY", StageForbids),
        (Code.UNAVAILABLE, "SHARD_UNAVAILABLE", Unavailable),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", DeadlineExceeded),
        (Code.INVALID_ARGUMENT, "MALFORMED", InvalidArgument),
        (Code.NOT_FOUND, "ORDER_UNKNOWN", NotFound),
    ],
)
async def test_an_error_of_the_exchange_has_its_kind_and_reason(
    gateway: FakeGateway, code: grpc.StatusCode, reason: str, kind: type[NotExecuted]
) -> None:
    error = await error_of(gateway, Refusal(code, f"REJECT_REASON_{reason}"))
    assert type(error) is kind
    assert error.reason is RejectReason[reason]
    assert reason in str(error)
    assert error.retry_after is None


async def test_the_reason_is_read_without_its_prefix_too(gateway: FakeGateway) -> None:
    error = await error_of(gateway, Refusal(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"))
    assert isinstance(error, Overloaded)
    assert error.reason is RejectReason.QUEUE_FULL


async def test_a_reason_of_a_newer_exchange_is_no_error(gateway: FakeGateway) -> None:
    error = await error_of(gateway, Refusal(Code.RESOURCE_EXHAUSTED, "REJECT_REASON_NEW"))
    assert isinstance(error, Overloaded)
    assert error.reason is RejectReason.UNSPECIFIED


async def test_retry_info_says_when_to_come_back(gateway: FakeGateway) -> None:
    error = await error_of(gateway, Refusal(Code.UNAVAILABLE, "SHARD_UNAVAILABLE", retry_after_ms=350))
    assert isinstance(error, Unavailable)
    assert error.retry_after == 0.35


async def test_pushback_outranks_retry_info(gateway: FakeGateway) -> None:
    refusal = Refusal(Code.UNAVAILABLE, "SHARD_UNAVAILABLE", retry_after_ms=350, pushback="900")
    error = await error_of(gateway, refusal)
    assert isinstance(error, Unavailable)
    assert error.retry_after == 0.9


@pytest.mark.parametrize("pushback", ["-1", "soon"])
async def test_a_negative_or_unreadable_pushback_means_do_not_come_back(gateway: FakeGateway, pushback: str) -> None:
    refusal = Refusal(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_after_ms=350, pushback=pushback)
    error = await error_of(gateway, refusal)
    assert isinstance(error, Overloaded)
    assert error.retry_after is None
    assert not error.worth_retrying


@pytest.mark.parametrize(
    ("code", "kind"),
    [(Code.UNAUTHENTICATED, Unauthenticated), (Code.PERMISSION_DENIED, PermissionDenied)],
)
async def test_codes_that_grpc_never_makes_itself_need_no_error_info(
    gateway: FakeGateway, code: grpc.StatusCode, kind: type[NotExecuted]
) -> None:
    assert type(await error_of(gateway, Refusal(code))) is kind


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.UNKNOWN, Code.INTERNAL, Code.CANCELLED])
async def test_an_error_that_grpc_may_have_made_leaves_the_outcome_open(
    gateway: FakeGateway, code: grpc.StatusCode
) -> None:
    error = await error_of(gateway, Refusal(code))
    assert type(error) is TransportError
    assert error.code is code


async def test_a_timeout_of_the_clients_own_is_told_from_the_exchanges(gateway: FakeGateway) -> None:
    assert type(await error_of(gateway, Hang(), timeout=0.05)) is TimedOut


async def test_an_address_that_cannot_be_connected_to_executed_nothing(gateway: FakeGateway) -> None:
    await gateway.stop()
    error = await error_of(gateway, LOST)
    assert type(error) is Unavailable
    assert error.worth_retrying


async def test_an_unknown_instrument_is_asked_for_again_and_then_named(
    client: AsyncClient, gateway: FakeGateway
) -> None:
    await client.instruments()
    with pytest.raises(UnknownInstrument, match="expected one of BTC-USDT, was 'DOGE-USDT'") as caught:
        await client.place_order("DOGE-USDT", 1, 1, 1)  # type: ignore[arg-type]  # Side.BUY is 1
    assert caught.value.reason is RejectReason.INSTRUMENT_UNKNOWN
    assert len(gateway.requests["ListInstruments"]) == 2
    assert gateway.requests["PlaceOrder"] == []
