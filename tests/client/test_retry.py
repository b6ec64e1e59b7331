import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.client import RetryBudget, RetryPolicy
from exchange.client._retry import Attempts, Failure
from tests.client.fake_gateway import VirtualTime

PASSES = Failure(worth_retrying=True)
STAYS = Failure(worth_retrying=False)


def middle() -> float:
    return 0.5


def test_the_backoff_doubles_up_to_its_bound() -> None:
    policy = RetryPolicy(delay_s_base=0.1, delay_s_max=2.0)
    bounds = [policy.backoff_s(failures, lambda: 1.0) for failures in (1, 2, 3, 4, 5, 6, 1000)]
    assert bounds == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_the_jitter_is_full(failures: int, random: float) -> None:
    assert 0 <= RetryPolicy().backoff_s(failures, lambda: random) < 2.0


def test_what_does_not_pass_is_not_retried() -> None:
    assert RetryPolicy().delay_s(STAYS, 1, 10.0, middle) is None


def test_there_are_no_more_attempts_than_allowed() -> None:
    policy = RetryPolicy(attempts_max=3)
    assert policy.delay_s(PASSES, 2, 10.0, middle) is not None
    assert policy.delay_s(PASSES, 3, 10.0, middle) is None


def test_a_wait_that_the_server_asks_for_is_kept_to_the_letter() -> None:
    assert RetryPolicy().delay_s(Failure(True, 0.7), 1, 10.0, middle) == 0.7


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    assert RetryPolicy().delay_s(Failure(True, 0.7), 1, 0.7, middle) is None


def test_a_policy_without_attempts_is_refused() -> None:
    with pytest.raises(ValueError, match="attempts_max: expected at least 1, was 0"):
        RetryPolicy(attempts_max=0)


def test_a_new_budget_allows_two_retries() -> None:
    budget = RetryBudget(RetryPolicy(), VirtualTime().environment.clock)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]


def test_ten_calls_earn_one_retry() -> None:
    budget = RetryBudget(RetryPolicy(), VirtualTime().environment.clock)
    while budget.withdraw():
        pass
    for _ in range(9):
        budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()


def test_a_second_earns_one_retry_and_no_more_are_saved_than_the_maximum() -> None:
    time = VirtualTime()
    budget = RetryBudget(RetryPolicy(budget_max=10), time.environment.clock)
    while budget.withdraw():
        pass
    time.now += 0.5
    assert not budget.withdraw()
    time.now += 0.5
    assert budget.withdraw()
    time.now += 3600
    assert sum(budget.withdraw() for _ in range(100)) == 10


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 5)), max_size=200))
def test_retries_never_exceed_a_tenth_of_the_calls_and_one_a_second(
    steps: list[tuple[float, int]],
) -> None:
    time = VirtualTime(now=0.0)
    budget = RetryBudget(RetryPolicy(), time.environment.clock)
    retries = 0
    for calls, (elapsed, tries) in enumerate(steps, 1):
        time.now += elapsed
        budget.deposit()
        retries += sum(budget.withdraw() for _ in range(tries))
        assert retries <= 2 + 0.1 * calls + time.now + 1e-6


async def test_only_a_retry_that_is_made_costs_a_token() -> None:
    time = VirtualTime()
    policy = RetryPolicy()
    budget = RetryBudget(policy, time.environment.clock)
    attempts = Attempts(policy, budget, time.environment, timeout_s=1.0)
    attempts.made = 1
    before = budget.balance
    assert not await attempts.again(STAYS)
    assert not await attempts.again(Failure(True, 5.0))
    assert budget.balance == before
    assert await attempts.again(PASSES)
    assert time.slept == [0.05]
    assert budget.balance == pytest.approx(before - 1 + 0.05)


async def test_without_budget_there_is_no_retry_and_no_wait() -> None:
    time = VirtualTime()
    policy = RetryPolicy(budget_max=0)
    attempts = Attempts(policy, RetryBudget(policy, time.environment.clock), time.environment, timeout_s=1.0)
    attempts.made = 1
    assert not await attempts.again(PASSES)
    assert attempts.budget_spent
    assert time.slept == []


# ---------------------------------------------------------------- by name


def test_policies_have_names() -> None:
    assert RetryPolicy.named("budget") == RetryPolicy()
    assert RetryPolicy.named("none").attempts_max == 1
    with pytest.raises(ValueError, match=r"expected .* or .naive., was 'sometimes'"):
        RetryPolicy.named("sometimes")  # type: ignore[arg-type]


async def test_the_naive_policy_retries_at_once_with_all_the_time_again_and_without_a_budget() -> None:
    time = VirtualTime()
    policy = RetryPolicy.named("naive")
    attempts = Attempts(policy, RetryBudget(policy, time.environment.clock), time.environment, 1.0)
    told_to_wait = Failure(worth_retrying=False, retry_after_s=5.0, passes=True)
    for made in range(1, policy.attempts_max):
        attempts.made = made
        await time.environment.sleep(1.0)
        assert await attempts.again(told_to_wait)
        assert attempts.remaining_s == 1.0
    attempts.made = policy.attempts_max
    assert not await attempts.again(told_to_wait)
    attempts.made = 1
    assert not await attempts.again(STAYS), "what never passes is not retried even so"
