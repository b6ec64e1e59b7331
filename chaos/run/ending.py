"""Why a run ends before its time, and what that is for a pipeline."""

from __future__ import annotations

from chaos.run.record import ExitCode

_GRAVITY = (
    ExitCode.ROLLBACK_FAILED,
    ExitCode.ABORTED,
    ExitCode.NOT_INJECTED,
    ExitCode.NO_STEADY_STATE,
    ExitCode.INVALID,
)
"""The first of them that holds is told: what somebody has to look after, then what says that the run says nothing."""


class Ended(Exception):
    """The run is over early; the message says why."""

    def __init__(self, exit_code: ExitCode, why: str) -> None:
        super().__init__(why)
        self.exit_code = exit_code


def gravest(endings: list[Ended]) -> Ended | None:
    """Return the ending that is told of several."""
    return min(endings, key=lambda ending: _GRAVITY.index(ending.exit_code), default=None)
