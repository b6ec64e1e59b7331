"""The versions of the settings: which one holds, which one is being rolled out, and what became of the others.

The machine keeps them as text, whose meaning it need not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

VERSIONS_KEPT = 100


class RolloutState(IntEnum):
    """As in `admin.proto`."""

    ROLLING = 1
    APPLIED = 2
    REVERTED = 3


class ProposeSettings(NamedTuple):
    """Number new settings and begin to roll them out, unless others are; without steps they hold at once.

    `steps`: the names of those that have them after each. `who`: the id of the key that asked, "" for the exchange.
    """

    text: str
    who: str
    reason: str
    steps: tuple[tuple[str, ...], ...]


class NoteRollout(NamedTuple):
    """Go on to a step, counted from 0, or end the rollout. One that has ended stays as it is."""

    version: int
    state: int
    step: int
    detail: str


class SettingsVersion(NamedTuple):
    """One version. `step`: how far it came; `detail`: for a person, why it was taken back; `end_ns` 0: under way."""

    version: int
    text: str
    who: str
    reason: str
    state: int
    steps: tuple[tuple[str, ...], ...]
    step: int
    begin_ns: int
    end_ns: int
    detail: str


class SettingsHistory:
    """The newest versions, and always the one that holds."""

    def __init__(self) -> None:
        self.versions: dict[int, SettingsVersion] = {}
        self.newest = 0
        self.applied = 0
        self.rolling = 0

    def propose(self, time_ns: int, command: ProposeSettings) -> int:
        """Return the number of the new version, 0 if another one is being rolled out."""
        if self.rolling:
            return 0
        self.newest += 1
        steps = tuple(map(tuple, command.steps))
        state, end_ns = (RolloutState.ROLLING, 0) if steps else (RolloutState.APPLIED, time_ns)
        row = command.text, command.who, command.reason, int(state), steps, 0, time_ns, end_ns, ""
        self.versions[self.newest] = SettingsVersion(self.newest, *row)
        if steps:
            self.rolling = self.newest
        else:
            self.applied = self.newest
        self._forget()
        return self.newest

    def note(self, time_ns: int, command: NoteRollout) -> bool:
        """Return whether it changed anything."""
        if not self.rolling or command.version != self.rolling:
            return False
        version = self.versions[self.rolling]
        if command.state == RolloutState.ROLLING:
            if not version.step <= command.step < len(version.steps):
                return False
            self.versions[self.rolling] = version._replace(step=command.step, detail=command.detail)
            return True
        ended = version._replace(state=command.state, detail=command.detail, end_ns=time_ns)
        self.versions[self.rolling] = ended
        if command.state == RolloutState.APPLIED:
            self.applied = self.rolling
        self.rolling = 0
        self._forget()
        return True

    def version_of(self, name: str) -> int:
        """Return the version that holds for a machine or a gateway; "": for whatever no rollout names."""
        if self.rolling:
            version = self.versions[self.rolling]
            if name in version.steps[version.step]:
                return self.rolling
        return self.applied

    def state(self) -> tuple[Any, ...]:
        """Return the whole state as nested tuples."""
        return self.newest, self.applied, self.rolling, [tuple(version) for version in self.versions.values()]

    @classmethod
    def restore(cls, state: Sequence[Any]) -> SettingsHistory:
        """Return a history in a state that `state` gave."""
        history = cls()
        history.newest, history.applied, history.rolling, rows = state
        for row in rows:
            version = SettingsVersion(*row)
            history.versions[version.version] = version._replace(steps=tuple(map(tuple, version.steps)))
        return history

    def _forget(self) -> None:
        while len(self.versions) > VERSIONS_KEPT:
            del self.versions[next(n for n in self.versions if n not in (self.applied, self.rolling))]
