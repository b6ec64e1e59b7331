"""How a call is made: its attempts, its errors, and what they leave open."""

import asyncio
from dataclasses import dataclass, replace
from enum import Enum

import grpc

from exchange.client._channels import Channels, Gateway
from exchange.client._environment import Environment
from exchange.client._errors import (
    GATEWAY_DRAINING,
    DeadlineExceeded,
    NotExecuted,
    OutcomeUnknown,
    Overloaded,
    StageForbids,
    TransportError,
    Unavailable,
    from_rpc_error,
)
from exchange.client._retry import Attempts, Failure, RetryBudget, RetryPolicy
from exchange.client._rpcs import RequestT, ResponseT, Rpc

Metadata = tuple[tuple[str, str], ...]

# What a gateway says when it cannot reach what it needs. It may be the one that is cut off, so others are asked.
_CUT_OFF = frozenset({"SHARD_UNAVAILABLE", "LEDGER_UNAVAILABLE", "SUPERVISOR_UNAVAILABLE"})
# What is the same whichever gateway is asked.
_EVERYWHERE = frozenset({"JOURNAL_UNAVAILABLE", "FUNDS_UNAVAILABLE"})
# A server that stops cancels what is under way. Where a message could not be written since the stream had just ended,
# gRPC says INTERNAL in place of why it ended.
_GATEWAY_FAILED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
    }
)


class Effect(Enum):
    """What a second execution of the same request would do."""

    NONE = "none"
    """A question."""
    SAME = "same"
    """It changes nothing more: the request says what shall be, or names what it creates."""
    AGAIN = "again"
    """It would be done twice, so it is sent again only after it was surely not executed."""


@dataclass(slots=True)
class Statistics:
    """Counts since the client was made."""

    calls: int = 0
    attempts: int = 0
    """Of calls. `attempts / calls` is how much this client amplifies load."""
    retries: int = 0
    """Attempts that were made because others had failed."""
    retries_refused: int = 0
    """Retries that were not made because the budget was spent."""
    outcomes_unknown: int = 0
    failovers: int = 0
    """Times that another address was turned to."""
    reconnects: int = 0
    """Of streams and sessions."""
    resyncs: int = 0
    """Order books that were subscribed to anew after a gap or a wrong checksum."""


class Caller:
    """Makes calls to whichever gateway is current, within deadline, attempts and budget."""

    def __init__(
        self,
        channels: Channels,
        *,
        metadata: Metadata,
        timeout: float,
        policy: RetryPolicy,
        environment: Environment,
    ) -> None:
        self.channels = channels
        self.metadata = metadata
        self.timeout = timeout
        self.policy = policy
        self.environment = environment
        self.budget = RetryBudget(policy, environment.clock)
        self.statistics = Statistics()

    def attempts(self, timeout: float | None = None) -> Attempts:
        self.statistics.calls += 1
        timeout_s = self.timeout if timeout is None else timeout
        return Attempts(self.policy, self.budget, self.environment, timeout_s)

    async def call(
        self,
        rpc: Rpc[RequestT, ResponseT],
        request: RequestT,
        *,
        effect: Effect = Effect.NONE,
        reference: str = "",
        timeout: float | None = None,
        attempts: Attempts | None = None,
    ) -> ResponseT:
        """The answer, from as many attempts as the policy allows.

        `reference` is the request's, for an OutcomeUnknown to carry.

        Raises:
            NotExecuted: no attempt was executed.
            TransportError: a question was not answered.
            OutcomeUnknown: an attempt of a command may have been executed.
        """
        if attempts is None:
            attempts = self.attempts(timeout)
        refused: NotExecuted | None = None
        while True:
            try:
                return await self.attempt(rpc, request, attempts)
            except (NotExecuted, TransportError) as error:
                if isinstance(error, TransportError):
                    attempts.open = True
                may_repeat = effect is not Effect.AGAIN or not attempts.open
                if may_repeat and await self.again(attempts, _failure_of(error)):
                    refused = error if isinstance(error, NotExecuted) else refused
                    continue
                if effect is not Effect.NONE and attempts.open:
                    raise self.unknown(rpc.name, attempts, error, reference) from error
                if refused is not None and isinstance(error, DeadlineExceeded):
                    # That the last attempt came too late says less than why there had to be one.
                    raise refused from error
                raise

    async def again(self, attempts: Attempts, failure: Failure) -> bool:
        """Waits for the next attempt, at the next address at once where that may help; False if there is none."""
        if failure.elsewhere:
            # Once around; then whatever it is, is so everywhere.
            if attempts.turns < self.channels.others:
                attempts.turns += 1
                self._turn(attempts.gateway)
            else:
                failure = replace(failure, elsewhere=False, is_free=False)
        again = await attempts.again(failure)
        self.statistics.retries += again
        self.statistics.retries_refused += attempts.budget_spent
        return again

    async def attempt(self, rpc: Rpc[RequestT, ResponseT], request: RequestT, attempts: Attempts) -> ResponseT:
        """One attempt, with the error as one of the SDK's."""
        gateway = self.channels.current
        attempts.made += 1
        attempts.gateway = gateway
        self.statistics.attempts += 1
        try:
            return await gateway.unary(rpc)(request, timeout=attempts.remaining_s, metadata=self.metadata)
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
            self.note_failure(gateway, error)
            raise error from rpc_error
        except asyncio.CancelledError as cancelled:
            if self.was_closed():
                raise TransportError("the client was closed during the call") from cancelled
            raise

    def was_closed(self) -> bool:
        """In a CancelledError: whether it means the client rather than the task.

        A channel that closes cancels its calls, which must not look as if somebody had cancelled the task.
        """
        task = asyncio.current_task()
        return self.channels.closed and (task is None or not task.cancelling())

    def note_failure(self, gateway: Gateway, error: NotExecuted | TransportError) -> None:
        """Turns to the next address where that may help.

        A timeout counts: a gateway that is stopped or cut off gives no other sign.
        """
        if isinstance(error, NotExecuted):
            # `again` sees to those that are cut off.
            away = isinstance(error, Unavailable) and error.reason_name not in _CUT_OFF | _EVERYWHERE
        else:
            away = error.code in _GATEWAY_FAILED
        if away:
            self._turn(gateway)

    def _turn(self, gateway: object) -> None:
        if self.channels.move_on(gateway):
            self.statistics.failovers += 1

    def unknown(self, what: str, attempts: Attempts, cause: Exception | None, reference: str = "") -> OutcomeUnknown:
        self.statistics.outcomes_unknown += 1
        spent = "; the retry budget is spent" if attempts.budget_spent else ""
        why = f": {cause}" if cause is not None else ""
        named = f" {reference!r}" if reference else ""
        return OutcomeUnknown(
            f"{what}{named}: may or may not have been executed after {attempts.made} attempt(s){spent}{why}",
            reference=reference,
        )


def cut_off(reason_name: str) -> bool:
    """Whether a refusal may be due to the gateway alone."""
    return reason_name in _CUT_OFF


def _failure_of(error: NotExecuted | TransportError) -> Failure:
    if not isinstance(error, NotExecuted):
        return Failure(error.worth_retrying, error.retry_after, passes=True)
    drains = error.reason_name == GATEWAY_DRAINING
    passes = isinstance(error, Overloaded | Unavailable | DeadlineExceeded | StageForbids)
    elsewhere = drains or cut_off(error.reason_name)
    return Failure(error.worth_retrying, error.retry_after, elsewhere, is_free=drains, passes=passes)
