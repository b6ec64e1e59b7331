"""Which of two supervisors is active."""

from __future__ import annotations

import asyncio

import pytest

from exchange.supervisor.turn import ASK_INTERVAL_S, ASK_TIMEOUT_S, CUT_OFF_MAX_S, FIRST_START_S, Absence, Lead, Turn
from tests.virtual_time import now_s

SILENCE_MAX_S = 1.0
ACTIVE, STANDING_BY, HANDING_OVER = Lead(True, 11), Lead(False, 11), Lead(True, 11, has_let_go=True)


async def never_cut_off() -> bool:
    return False


def turn_of(number: int) -> Turn:
    return Turn(number, SILENCE_MAX_S, monotonic_s=now_s)


@pytest.mark.parametrize(
    ("said", "of_0", "of_1"),
    [
        (Absence.NOT_STARTED, True, False),
        (STANDING_BY, True, False),
        (ACTIVE, False, False),
        (HANDING_OVER, True, True),
        (Absence.DEAD, True, True),
        (Absence.SILENT, False, False),
    ],
)
async def test_whose_turn_it_is_at_once(said: Lead | Absence, of_0: bool, of_1: bool) -> None:
    assert [turn_of(number).hear(said) for number in (0, 1)] == [of_0, of_1]


@pytest.mark.parametrize("number", [0, 1])
async def test_one_that_stays_silent_is_given_up_after_its_limit_and_is_to_be_ended(number: int) -> None:
    turn = turn_of(number)
    assert not turn.hear(ACTIVE)
    heard_s = now_s()
    while not turn.hear(Absence.SILENT):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    assert SILENCE_MAX_S < now_s() - heard_s <= SILENCE_MAX_S + 0.2
    assert turn.other_pid == 11


@pytest.mark.parametrize("said", [Absence.SILENT, Absence.NOT_STARTED])
async def test_at_the_first_start_the_first_one_goes_without_waiting_and_the_second_one_is_patient(
    said: Absence,
) -> None:
    """Nor does it wait for ever for one that nothing knows any more: its node may have gone, for good."""
    first, second = turn_of(0), turn_of(1)
    began_s = now_s()
    await asyncio.sleep(ASK_TIMEOUT_S)
    assert first.hear(said)
    while not second.hear(said):  # noqa: ASYNC110
        await asyncio.sleep(ASK_INTERVAL_S)
    assert now_s() - began_s > FIRST_START_S


async def test_one_that_speaks_now_and_then_is_not_given_up() -> None:
    turn = turn_of(1)
    assert not turn.hear(ACTIVE)
    for _ in range(20):
        await asyncio.sleep(0.9 * SILENCE_MAX_S)
        assert not turn.hear(Absence.SILENT)
        assert not turn.hear(ACTIVE)


async def test_one_that_stands_by_is_not_ended() -> None:
    turn = turn_of(0)
    assert not turn.hear(ACTIVE)
    # It was fenced, or restarted, and follows now.
    assert turn.hear(STANDING_BY)
    assert turn.other_pid == 0


async def test_one_that_hands_over_is_not_ended_but_ends_itself() -> None:
    turn = turn_of(1)
    assert not turn.hear(ACTIVE)
    assert turn.hear(HANDING_OVER)
    assert turn.other_pid == 0


async def test_a_first_one_that_is_started_again_goes_first_again() -> None:
    first, second = turn_of(0), turn_of(1)
    assert not second.hear(ACTIVE)
    assert not second.hear(Absence.SILENT)
    # Ray has it again within the limit, and neither is active.
    assert not second.hear(STANDING_BY)
    assert first.hear(STANDING_BY)


async def test_one_that_does_not_answer_in_time_counts_as_silent() -> None:
    asked_s = []

    async def ask() -> Lead | Absence:
        asked_s.append(now_s())
        if len(asked_s) == 1:
            return ACTIVE
        await asyncio.Event().wait()
        raise AssertionError("it hangs")

    turn = turn_of(1)
    await turn.wait(ask, never_cut_off)
    assert asked_s[1] - asked_s[0] == pytest.approx(ASK_INTERVAL_S, abs=0.01)
    assert asked_s[2] - asked_s[1] == pytest.approx(ASK_TIMEOUT_S + ASK_INTERVAL_S, abs=0.01)
    assert turn.other_pid == 11


async def test_one_that_is_cut_off_itself_waits_for_longer_but_not_for_ever() -> None:
    turn = turn_of(1)
    assert not turn.hear(ACTIVE)

    async def ask() -> Lead | Absence:
        return Absence.SILENT

    async def is_cut_off() -> bool:
        return True

    began_s = now_s()
    await turn.wait(ask, is_cut_off)
    assert CUT_OFF_MAX_S < now_s() - began_s <= CUT_OFF_MAX_S + 0.2


async def test_one_that_hangs_while_it_becomes_active_is_ended_too() -> None:
    turn = turn_of(1)
    # It may hold the journal by now.
    assert not turn.hear(STANDING_BY)
    await asyncio.sleep(SILENCE_MAX_S + 0.1)
    assert turn.hear(Absence.SILENT)
    assert turn.other_pid == 11
