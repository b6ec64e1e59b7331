"""Who tries again, when, and what is known in the end."""

from random import Random

import pytest

from chaos.load import retries
from chaos.load.attempts import Told
from chaos.load.client_log import ACKNOWLEDGED, REJECTED, UNKNOWN
from chaos.load.plan import Retry
from chaos.load.retries import ATTEMPTS_MAX, BACKOFF_S_MAX, Failure, insist, wait_s

REFUSED = Told(REJECTED, {"o": REJECTED}, "QUEUE_FULL"), Failure("QUEUE_FULL", False, False, 0.5)
OPEN = Told(UNKNOWN, {"o": UNKNOWN}, "UNAVAILABLE"), Failure("UNAVAILABLE", True, False, None)
FINAL = Told(REJECTED, {"o": REJECTED}, "PERMISSION_DENIED"), Failure("PERMISSION_DENIED", False, True, None)
DONE = Told(ACKNOWLEDGED, {"o": ACKNOWLEDGED, "rej": 0}), None
FUNDS = Told(REJECTED, {"o": REJECTED, "rej": 101}, "INSUFFICIENT_FUNDS"), None
Answer = tuple[Told, Failure | None]


@pytest.mark.parametrize("retry", ["naive", "ignores-pushback"])
def test_the_careless_do_not_wait_for_what_they_are_asked(retry: Retry) -> None:
    wait = wait_s(retry, 1, 10.0, Random(1).random)
    assert wait is not None
    assert wait < 0.1


def test_backoff_is_jittered_up_to_a_bound_and_waits_for_what_it_is_asked() -> None:
    random = Random(1).random
    waits = [wait_s("backoff", attempt, None, random) for attempt in range(1, ATTEMPTS_MAX)]
    assert all(wait is not None and 0.0 <= wait <= BACKOFF_S_MAX for wait in waits)
    assert len(set(waits)) == len(waits)
    assert wait_s("backoff", 1, 10.0, random) == 10.0
    assert wait_s("none", 1, None, random) is None


@pytest.mark.parametrize(
    ("retry", "answers", "outcome", "attempts"),
    [
        ("none", [REFUSED], REJECTED, 1),
        ("naive", [REFUSED, OPEN, DONE], ACKNOWLEDGED, 3),
        ("naive", [FUNDS], REJECTED, 1),
        ("naive", [FINAL], REJECTED, 1),
        ("naive", [REFUSED] * ATTEMPTS_MAX, REJECTED, ATTEMPTS_MAX),
        ("naive", [OPEN, *[REFUSED] * (ATTEMPTS_MAX - 1)], UNKNOWN, ATTEMPTS_MAX),
    ],
)
async def test_what_is_known_in_the_end(
    retry: Retry, answers: list[Answer], outcome: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "IGNORED_PUSHBACK_S", 0.0)
    left = iter(answers)
    made = 0

    async def once() -> Answer:
        nonlocal made
        made += 1
        return next(left)

    told = await insist(retry, once, Random(1).random)
    assert (told.outcome, made) == (outcome, attempts)
