"""What an experiment says of a run: when it was well again, and that a run which never was is told as such."""

from chaos.incident import BEFORE_S, Outcome
from chaos.load.record import Ending, Kind, Record, Request


def outcome(bad_from_s: float, bad_to_s: float) -> Outcome:
    """A run at ten requests a second, of which those in between got no answer in time."""
    record = Record(deadline_s=1.0)
    for number in range(400):
        due_s = number / 10
        is_bad = bad_from_s <= due_s < bad_to_s
        kind = Kind.CANCEL if number % 2 else Kind.PLACE
        ending = Ending.UNKNOWN if is_bad else Ending.ACKNOWLEDGED
        record.requests.append(Request(kind, due_s, due_s + 0.1, ending))
    stages = [(0.0, "OPEN"), (BEFORE_S + 1, "CANCEL_ONLY"), (BEFORE_S + 3, "LIMITED"), (BEFORE_S + 6, "OPEN")]
    return Outcome("warm", "staged", record, trigger_end_s=BEFORE_S, stages=stages)


def test_recovery_is_when_it_is_well_and_stays_so() -> None:
    assert outcome(BEFORE_S, BEFORE_S + 5).recovered_after_s == 5
    assert outcome(100, 100).recovered_after_s == 0


def test_what_is_never_well_again_has_not_recovered() -> None:
    assert outcome(BEFORE_S, 100).recovered_after_s is None
    relapse = outcome(35, 100)
    assert relapse.recovered_after_s is None, "well for a while is not enough"


def test_times_count_from_the_failure() -> None:
    seen = outcome(BEFORE_S, BEFORE_S + 2)
    assert seen.open_after_s == 6
    assert seen.first_cancel_after_s is not None
    assert 2 <= seen.first_cancel_after_s < 2.3
