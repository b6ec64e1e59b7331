"""A rule that is looked at from several sides is one check: it holds if all of them hold."""

from __future__ import annotations

from chaos.run.judging import merged
from chaos.run.record import Check


def check(found: str, *, held: bool, looked_at: int = 1) -> Check:
    return Check(name="I8", held=held, wanted="w", found=found, looked_at=looked_at, evidence=(found,))


def test_one_side_that_is_broken_breaks_the_rule_and_is_named_first() -> None:
    (one,) = merged([check("well", held=True, looked_at=5), check("shed", held=False, looked_at=2)])
    assert not one.held
    assert one.found == "shed; well"
    assert one.evidence[0] == "shed"
    assert one.looked_at == 7


def test_checks_of_other_names_stay_as_they_are() -> None:
    others = [Check(name=name, held=True, wanted="w", found="f", looked_at=1) for name in ("I1", "I2")]
    assert merged(others) == others
