"""When a call is tried again. The only layer that does: gRPC's own retries are off.

Full jitter: AWS, "Exponential Backoff And Jitter"; the budget: Finagle's RetryBudget; pushback: gRPC
proposal A6.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from exchange.client._environment import Environment

RetryName = Literal["none", "budget", "naive"]
NAIVE_ATTEMPTS_MAX = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed attempt says about another one."""

    worth_retrying: bool
    retry_after_s: float | None = None
    """Asked for by the server. None: the policy's own backoff."""
    elsewhere: bool = False
    """Another gateway may be able to do what this one cannot: it is asked at once, each one once."""
    is_free: bool = False
    """The gateway has not so much as looked at the request, because it is about to stop: it costs no budget."""
    passes: bool = False
    """It says something of the moment, whether or not it is worth retrying: the naive policy asks no more."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when; `RetryBudget` bounds it over all calls of a client.

    `RetryPolicy(attempts_max=1)` never retries.
    """

    attempts_max: int = 3
    """The first one included."""
    delay_s_base: float = 0.1
    """Upper bound of the wait before the second attempt; it doubles with each one."""
    delay_s_max: float = 2.0
    budget_ratio: float = 0.1
    """Retries that each call earns."""
    budget_per_s: float = 1.0
    """Retries that each second earns."""
    budget_max: float = 10.0
    """Retries that can be saved up. A new client has two, so that its first call may use them."""
    is_naive: bool = False
    """Retries whatever passes at once, each attempt with the whole timeout, whatever the exchange asks for and without
    a budget: what keeps an overload alive. For experiments."""

    @classmethod
    def named(cls, name: RetryName) -> "RetryPolicy":
        """The policy of a name: no retries, the default one, or the one that does harm."""
        if name == "none":
            return cls(attempts_max=1)
        if name == "naive":
            return cls(attempts_max=NAIVE_ATTEMPTS_MAX, is_naive=True)
        if name != "budget":
            raise ValueError(f'retry: expected "none", "budget" or "naive", was {name!r}')
        return cls()

    def __post_init__(self) -> None:
        if self.attempts_max < 1:
            raise ValueError(f"attempts_max: expected at least 1, was {self.attempts_max}")

    def backoff_s(self, failures: int, random: Callable[[], float]) -> float:
        """Full jitter: uniform between 0 and a bound that doubles with each failure in a row."""
        # The exponent is capped so that a stream which fails for days makes no huge number.
        bound = self.delay_s_base * 2.0 ** min(failures - 1, 32)
        return random() * min(bound, self.delay_s_max)

    def delay_s(self, failure: Failure, attempt: int, remaining_s: float, random: Callable[[], float]) -> float | None:
        """The wait after attempt number `attempt`; None if there shall be no other.

        A wait that the server asked for is kept to the letter (it has spread the crowd already).
        One that would outlive the call's deadline is not begun: the caller gets the true reason at
        once, in place of a timeout later.
        """
        if attempt >= self.attempts_max:
            return None
        if self.is_naive:
            return 0.0 if failure.worth_retrying or failure.passes else None
        if not failure.worth_retrying:
            return None
        delay_s = failure.retry_after_s or self.backoff_s(attempt, random)
        return delay_s if delay_s < remaining_s else None


class RetryBudget:
    """A token bucket: retries stay a fraction of the calls, however much fails.

    This, not the backoff, is what lets an overloaded exchange recover: backoff only postpones load.
    """

    __slots__ = ("_balance", "_clock", "_max", "_per_s", "_ratio", "_updated")

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self._ratio = policy.budget_ratio
        self._per_s = policy.budget_per_s
        self._max = policy.budget_max
        self._clock = clock
        self._updated = clock()
        self._balance = math.inf if policy.is_naive else min(2.0, policy.budget_max)
        if policy.is_naive:
            self._max = math.inf

    @property
    def balance(self) -> float:
        now = self._clock()
        earned = (now - self._updated) * self._per_s
        self._updated = now
        self._balance = min(self._max, self._balance + earned)
        return self._balance

    def deposit(self) -> None:
        """For each call, before its first attempt."""
        self._balance = min(self._max, self.balance + self._ratio)

    def withdraw(self) -> bool:
        """For each retry; False if it must not be made."""
        # Ten deposits of a tenth make 0.9999999999999999.
        if self.balance < 1 - 1e-9:
            return False
        self._balance = max(0.0, self._balance - 1)
        return True


class Attempts:
    """The attempts of one call: their number, their common deadline, what they left open."""

    __slots__ = (
        "_budget",
        "_deadline",
        "_environment",
        "_policy",
        "_timeout_s",
        "budget_spent",
        "gateway",
        "made",
        "open",
        "turns",
    )

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, environment: Environment, timeout_s: float) -> None:
        self._policy = policy
        self._budget = budget
        self._environment = environment
        self._timeout_s = timeout_s
        self._deadline = environment.clock() + timeout_s
        self.made = 0
        self.gateway: object = None
        """What the last attempt was made at."""
        self.turns = 0
        """Times that another gateway was asked at once."""
        self.open = False
        """An attempt may have been executed: no later refusal makes that undone."""
        self.budget_spent = False
        budget.deposit()

    @property
    def remaining_s(self) -> float:
        return self._deadline - self._environment.clock()

    async def again(self, failure: Failure) -> bool:
        """Waits for the next attempt; False, at once, if there shall be none."""
        environment = self._environment
        if self._policy.is_naive:
            self._deadline = environment.clock() + self._timeout_s
        if failure.elsewhere:
            delay_s = 0.0 if self.made < self._policy.attempts_max and self.remaining_s > 0 else None
        else:
            delay_s = self._policy.delay_s(failure, self.made, self.remaining_s, environment.random)
        if delay_s is None:
            return False
        # Last, so that only a retry that is made costs a token.
        if not failure.is_free and not self._budget.withdraw():
            self.budget_spent = True
            return False
        if delay_s:
            await environment.sleep(delay_s)
        return self.remaining_s > 0
