"""What an operator asks about the settings, and the answers, as AdminService has them: serialised messages."""

from __future__ import annotations

from exchange.engine.settings_history import RolloutState, SettingsHistory, SettingsVersion
from exchange.settings import SettingsInvalid
from exchange.settings_text import Change, changes_between, format_settings
from exchange.supervisor.configuration import Configuration, SettingsRefused
from exchange.supervisor.settings import SettingsInForce
from exchange.v1 import admin_pb2

Answer = tuple[str, str, bytes]
"""(reason, message, response): why it is refused, ("", "") if it is not."""


class SettingsAnswers:
    """Reads requests and encodes answers."""

    def __init__(self, configuration: Configuration, in_force: SettingsInForce) -> None:
        self._configuration = configuration
        self._in_force = in_force

    async def apply(self, request: bytes, key_id: str) -> Answer:
        """Answer an ApplySettingsRequest."""
        asked = admin_pb2.ApplySettingsRequest.FromString(request)
        response = admin_pb2.ApplySettingsResponse()
        try:
            if asked.validate_only:
                settings, steps = await self._configuration.check(asked.toml)
                changes = changes_between(self._in_force.of(""), settings)
                response.version.toml = format_settings(settings)
                for step in steps:
                    response.version.steps.add(components=step)
                _add_changes(response.version, changes)
            else:
                begun = await self._configuration.apply(asked.toml, key_id, asked.reason, force=asked.force)
                self._fill(response.version, begun)
        except (SettingsInvalid, SettingsRefused) as refused:
            return _refusal(refused)
        return "", "", response.SerializeToString()

    async def revert(self, request: bytes, key_id: str) -> Answer:
        """Answer a RevertSettingsRequest."""
        asked = admin_pb2.RevertSettingsRequest.FromString(request)
        response = admin_pb2.RevertSettingsResponse()
        try:
            version = await self._configuration.revert(asked.version, key_id, asked.reason, force=asked.force)
        except (SettingsInvalid, SettingsRefused) as refused:
            return _refusal(refused)
        self._fill(response.version, version)
        return "", "", response.SerializeToString()

    def get(self) -> bytes:
        """Return a GetSettingsResponse."""
        history = self._configuration.history
        response = admin_pb2.GetSettingsResponse()
        self._fill(response.applied, history.versions[history.applied])
        self._fill(response.newest, history.versions[history.newest])
        return response.SerializeToString()

    def list(self) -> bytes:
        """Return a ListSettingsResponse."""
        response = admin_pb2.ListSettingsResponse()
        for version in self._configuration.history.versions.values():
            self._fill(response.versions.add(), version)
        return response.SerializeToString()

    def _fill(self, message: admin_pb2.SettingsVersion, version: SettingsVersion) -> None:
        message.version = version.version
        message.toml = version.text
        message.key_id = version.who
        message.reason = version.reason
        message.state = version.state  # type: ignore[assignment]  # numbers as in the protocol
        for step in version.steps:
            message.steps.add(components=step)
        message.steps_begun = version.step + 1 if version.steps else 0
        message.begin_time_ns = version.begin_ns
        message.end_time_ns = version.end_ns
        message.detail = version.detail
        before = _held_before(self._configuration.history, version.version)
        if before:
            changes = changes_between(self._in_force.version(before), self._in_force.version(version.version))
            _add_changes(message, changes)


def _held_before(history: SettingsHistory, number: int) -> int:
    """Return the version that held when another one was asked for, 0 if it is not kept any more."""
    held = (n for n, version in history.versions.items() if n < number and version.state == RolloutState.APPLIED)
    return max(held, default=0)


def _add_changes(message: admin_pb2.SettingsVersion, changes: list[Change]) -> None:
    for change in changes:
        message.changes.add(**change._asdict())


def _refusal(refused: SettingsInvalid | SettingsRefused) -> Answer:
    return refused.code, str(refused), b""
