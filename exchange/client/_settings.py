"""The exchange's settings and their versions, as an operator sees them."""

from dataclasses import dataclass

from exchange.client._enums import RolloutState
from exchange.v1 import admin_pb2


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One value that differs, such as "codel.target_ms"."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class SettingsVersion:
    version: int
    """From 1 on; 0: they were only checked."""
    toml: str
    """Every value."""
    key_id: str
    """Of the operator who asked for it; empty: the exchange itself, at its first start."""
    reason: str
    state: RolloutState
    steps: tuple[tuple[str, ...], ...]
    """Who has it after each step, by machine and gateway; none: it held at once."""
    steps_begun: int
    begin_time_ns: int
    end_time_ns: int
    """0: under way."""
    detail: str
    """Why it was taken back."""
    changes: tuple[SettingChange, ...]
    """Against the version that held when it was asked for."""

    @classmethod
    def from_proto(cls, message: admin_pb2.SettingsVersion) -> "SettingsVersion":
        return cls(
            version=message.version,
            toml=message.toml,
            key_id=message.key_id,
            reason=message.reason,
            state=RolloutState(message.state),
            steps=tuple(tuple(step.components) for step in message.steps),
            steps_begun=message.steps_begun,
            begin_time_ns=message.begin_time_ns,
            end_time_ns=message.end_time_ns,
            detail=message.detail,
            changes=tuple(SettingChange(change.name, change.before, change.after) for change in message.changes),
        )


@dataclass(frozen=True, slots=True)
class SettingsStatus:
    applied: SettingsVersion
    """What holds for all but those that a rollout has reached."""
    newest: SettingsVersion
    """What is being rolled out, else the last that was."""

    @classmethod
    def from_proto(cls, message: admin_pb2.GetSettingsResponse) -> "SettingsStatus":
        return cls(SettingsVersion.from_proto(message.applied), SettingsVersion.from_proto(message.newest))
