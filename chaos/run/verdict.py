"""What a run has shown, from all that was checked and from how it ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from chaos.experiment.model import Experiment
from chaos.run.ending import Ended, gravest
from chaos.run.record import Check, ExitCode, Verdict

LIVENESS = ("I11", "I13")
"""The rules that an exchange without its policies is expected to break: those of overload."""
_SAFETY_PREFIX = "I"
_SOMETIMES = "sometimes:"
_NAMED_MAX = 3


def judge(
    name: str, experiment: Experiment, endings: list[Ended], checks: Sequence[Check], figures: Mapping[str, float]
) -> Verdict:
    """Return the verdict. A run that ended early says nothing, so it never counts as a deviation that was expected."""
    ended = gravest(endings)
    if ended is not None:
        exit_code, summary = ended.exit_code, str(ended)
    elif experiment.expect == "deviate":
        exit_code, summary = _deviated(checks, experiment.deviates_in)
    else:
        broken = [check for check in checks if not check.held]
        exit_code = ExitCode.BROKEN if broken else ExitCode.HELD
        summary = f"broken: {_named(broken)}" if broken else f"held: all of {len(checks)} checks"
    return Verdict(
        name=name,
        expect=experiment.expect,
        exit_code=int(exit_code),
        summary=summary,
        checks=tuple(checks),
        figures=dict(figures),
    )


def _deviated(checks: Sequence[Check], named: Collection[str]) -> tuple[ExitCode, str]:
    broken = [check for check in checks if not check.held]
    unexpected = [check for check in broken if not may_deviate(check, named)]
    expected = [check for check in broken if may_deviate(check, named)]
    if unexpected:
        return ExitCode.BROKEN, f"broken, and not expected to be: {_named(unexpected)}"
    if not expected:
        return ExitCode.BROKEN, f"expected to deviate, but held: all of {len(checks)} checks"
    return ExitCode.HELD, f"deviated, as expected: {_named(expected)}"


def may_deviate(check: Check, named: Collection[str]) -> bool:
    """Whether a check is one in which a deviation is what was expected.

    Those are the service levels and the rules of overload; a rule of safety only if the experiment names it. What was
    not looked at, and what was to happen sometimes and never did, show nothing.
    """
    if not check.looked_at or check.name.startswith(_SOMETIMES) or check.name == "steady_state":
        return False
    is_rule = check.name.startswith(_SAFETY_PREFIX) and check.name[1:].isdecimal()
    return check.name in named or not is_rule or check.name in LIVENESS


def _named(checks: Sequence[Check]) -> str:
    shown = [f"{check.name} ({check.found})" for check in checks[:_NAMED_MAX]]
    more = len(checks) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
