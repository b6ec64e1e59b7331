"""Which settings hold for whom, and telling them.

They hold as the journal has them, so they are the same for any supervisor; whoever was told keeps them while none is
there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from exchange.engine.settings_history import SettingsHistory
from exchange.settings import Settings, pack_settings
from exchange.settings_text import recover_settings
from exchange.supervisor.component import AUDITOR, Component
from exchange.supervisor.event_log import EventLog


class SettingsInForce:
    """The settings of each process, by the name of its machine or gateway; "" for the supervisor's own."""

    def __init__(self, history: Callable[[], SettingsHistory], first: Settings) -> None:
        self._history = history
        self._first = first
        self._read: dict[int, tuple[Settings, str]] = {}

    def of(self, name: str) -> Settings:
        """Return what holds there now."""
        return self.version(self.version_of(name))

    def version_of(self, name: str) -> int:
        return self._history().version_of(name)

    def version(self, number: int) -> Settings:
        """Return the settings of a version, 0 being what the exchange was started with."""
        return self._first if not number else self._known(number)[0]

    def wrong(self, number: int) -> str:
        """Return what this build does not take of a version, and has the default for; else ""."""
        return "" if not number else self._known(number)[1]

    def _known(self, number: int) -> tuple[Settings, str]:
        if number not in self._read:
            self._read[number] = recover_settings(self._history().versions[number].text)
        return self._read[number]


class SettingsPublisher:
    """Tells every process its settings, until it has heard."""

    def __init__(self, in_force: SettingsInForce, events: EventLog) -> None:
        self._in_force = in_force
        self._events = events

    def has_heard(self, component: Component) -> bool:
        """Whether a process has the settings that hold for it; the auditor has no use for any."""
        return component.settings_version == self._in_force.version_of(component.serves) or component.name == AUDITOR

    def watch(self, component: Component) -> None:
        """Tell a process that runs, unless it has heard or is being told."""
        task = component.settings_task
        if task is not None and task.done():
            component.settings_task = task = None
        if component.is_up and task is None and not self.has_heard(component):
            component.settings_task = asyncio.create_task(self._tell(component))
            component.settings_task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _tell(self, component: Component) -> None:
        process, version = component.process, self._in_force.version_of(component.serves)
        assert process is not None
        # Should the answer be lost, nobody knows which it has: then it is told again, whatever holds by then.
        before, component.settings_version = component.settings_version, 0
        await process.apply_settings(pack_settings(self._in_force.version(version)))
        if component.process is process:
            if before:
                self._events.add("settings", component, f"has version {version}, had {before}")
            component.settings_version = version
