"""Why a run ends before its time, and what that is for a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chaos.run.record import ExitCode

_GRAVITY = (
    ExitCode.ROLLBACK_FAILED,
    ExitCode.ABORTED,
    ExitCode.NOT_INJECTED,
    ExitCode.NO_STEADY_STATE,
    ExitCode.INVALID,
    ExitCode.BROKEN,
    ExitCode.HELD,
)
"""The first of them that holds is told: what somebody has to look after, then what says that the run says nothing."""


class Ended(Exception):
    """The run is over early; the message says why."""

    def __init__(self, exit_code: ExitCode, why: str) -> None:
        super().__init__(why)
        self.exit_code = exit_code


def gravest(endings: Sequence[Ended]) -> Ended | None:
    """Return the ending that is told of several."""
    return min(endings, key=lambda ending: _GRAVITY.index(ending.exit_code), default=None)


def gravest_code(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the exit code of several runs."""
    return min(codes, key=_GRAVITY.index, default=ExitCode.HELD)
