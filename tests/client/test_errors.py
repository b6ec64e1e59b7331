import grpc
import pytest

from exchange.client import (
    AlreadyExists,
    AsyncClient,
    DeadlineExceeded,
    EvenkeelError,
    InsufficientFunds,
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
        (Code.FAILED_PRECONDITION, "INSUFFICIENT_FUNDS", InsufficientFunds),
        (Code.FAILED_PRECONDITION, "TOO_MANY_OPEN_ORDERS", NotExecuted),
        (Code.ALREADY_EXISTS, "INSTRUMENT_EXISTS", AlreadyExists),
    ],
)
async def test_an_error_of_the_exchange_has_its_kind_and_reason(
    gateway: FakeGateway, code: grpc.StatusCode, reason: str, kind: type[NotExecuted]
) -> None:
    error = await error_of(gateway, Refusal(code, f"REJECT_REASON_{reason}"))
    assert type(error) is kind
    assert error.reason is RejectReason[reason]
    assert error.reason_name == reason
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
    assert error.reason_name == "NEW"


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (Code.INVALID_ARGUMENT, "AMOUNT_TOO_PRECISE", InvalidArgument),
        (Code.INVALID_ARGUMENT, "TRANSFER_TO_SELF", InvalidArgument),
        (Code.NOT_FOUND, "ASSET_UNKNOWN", NotFound),
        (Code.ALREADY_EXISTS, "REFERENCE_REUSED", AlreadyExists),
        (Code.UNAUTHENTICATED, "KEY_EXPIRED", Unauthenticated),
        (Code.UNAUTHENTICATED, "KEY_REVOKED", Unauthenticated),
        (Code.PERMISSION_DENIED, "ADDRESS_NOT_ALLOWED", PermissionDenied),
        (Code.FAILED_PRECONDITION, "STAGE_NEW", StageForbids),
        (Code.FAILED_PRECONDITION, "SOMETHING_NEW", NotExecuted),
        (Code.FAILED_PRECONDITION, "", NotExecuted),
    ],
)
async def test_a_reason_that_no_order_knows_is_read_by_its_name(
    gateway: FakeGateway, code: grpc.StatusCode, reason: str, kind: type[NotExecuted]
) -> None:
    error = await error_of(gateway, Refusal(code, reason))
    assert type(error) is kind
    assert error.reason is RejectReason.UNSPECIFIED
    assert error.reason_name == reason
    assert reason in str(error)


async def test_a_reason_that_the_exchanges_text_names_is_not_said_twice(gateway: FakeGateway) -> None:
    refusal = Refusal(Code.NOT_FOUND, "ASSET_UNKNOWN", text="Deposit: ASSET_UNKNOWN")
    assert str(await error_of(gateway, refusal)) == "NOT_FOUND: Deposit: ASSET_UNKNOWN"


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
    assert not error.worth_retrying
    assert error.retry_after == 0.35, "for whoever has more time than this call had"


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


async def test_an_outcome_that_not_even_the_exchange_knows_is_open(gateway: FakeGateway) -> None:
    error = await error_of(gateway, Refusal(Code.UNKNOWN, "OUTCOME_UNKNOWN"))
    assert type(error) is TransportError
    assert error.worth_retrying


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
    assert caught.value.reason_name == "INSTRUMENT_UNKNOWN"
    assert len(gateway.requests["ListInstruments"]) == 2
    assert gateway.requests["PlaceOrder"] == []


async def test_a_last_attempt_that_came_too_late_does_not_hide_why_there_was_one(gateway: FakeGateway) -> None:
    stage = Refusal(Code.FAILED_PRECONDITION, "STAGE_CANCEL_ONLY", retry_after_ms=100)
    late = Refusal(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    gateway.script("GetStatus", stage, late)
    async with AsyncClient(gateway.address, environment=VirtualTime().environment) as client:
        with pytest.raises(StageForbids):
            await client.status(timeout=1.0)
    assert len(gateway.requests["GetStatus"]) == 2
