"""The versions of the settings, as the control machine keeps them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine.control import Control, ControlResult
from exchange.engine.settings_history import VERSIONS_KEPT, NoteRollout, ProposeSettings, RolloutState

STEPS = (("gateway-0",), ("gateway-0", "shard-0"), ("gateway-0", "shard-0", "shard-1"))
FIRST = ProposeSettings("a = 1", "", "first start", ())
SECOND = ProposeSettings("a = 2", "k1", "faster", STEPS)


class World:
    def __init__(self) -> None:
        self.control = Control()
        self.time_ns = 0

    def do(self, command: Any) -> ControlResult:
        self.time_ns += 1
        return self.control.apply(self.time_ns, [command]).results[0]

    def holds(self, *names: str) -> list[int]:
        return [self.control.settings.version_of(name) for name in names]


def test_the_first_version_holds_at_once() -> None:
    world = World()
    assert world.do(FIRST).version == 1
    assert world.holds("gateway-0", "shard-1", "") == [1, 1, 1]
    version = world.control.settings.versions[1]
    assert (version.state, version.begin_ns, version.end_ns) == (RolloutState.APPLIED, 1, 1)


def test_a_step_says_who_has_the_new_version() -> None:
    world = World()
    world.do(FIRST)
    assert world.do(SECOND).version == 2
    assert world.holds("gateway-0", "shard-0", "shard-1", "") == [2, 1, 1, 1]
    world.do(NoteRollout(2, int(RolloutState.ROLLING), 1, ""))
    assert world.holds("gateway-0", "shard-0", "shard-1") == [2, 2, 1]
    world.do(NoteRollout(2, int(RolloutState.APPLIED), 2, ""))
    assert world.holds("gateway-0", "shard-0", "shard-1", "") == [2, 2, 2, 2]


def test_what_is_taken_back_holds_for_nobody_and_keeps_its_evidence() -> None:
    world = World()
    world.do(FIRST)
    world.do(SECOND)
    world.do(NoteRollout(2, int(RolloutState.REVERTED), 0, "gateway-0 was lost"))
    assert world.holds("gateway-0", "") == [1, 1]
    assert world.control.settings.versions[2].detail == "gateway-0 was lost"
    assert world.do(SECOND).version == 3


def test_only_one_is_rolled_out_at_a_time_and_one_that_ended_stays_ended() -> None:
    world = World()
    world.do(FIRST)
    world.do(SECOND)
    assert world.do(SECOND).version == 0
    world.do(NoteRollout(2, int(RolloutState.REVERTED), 0, ""))
    for late in (RolloutState.APPLIED, RolloutState.ROLLING):
        assert world.do(NoteRollout(2, int(late), 1, "")).duplicate
    assert world.holds("gateway-0") == [1]


def test_the_one_that_holds_is_never_forgotten() -> None:
    world = World()
    world.do(FIRST)
    for _ in range(2 * VERSIONS_KEPT):
        version = world.do(SECOND).version
        world.do(NoteRollout(version, int(RolloutState.REVERTED), 0, ""))
    versions = world.control.settings.versions
    assert len(versions) == VERSIONS_KEPT
    assert 1 in versions


COMMANDS = st.one_of(
    st.just(SECOND),
    st.builds(
        NoteRollout, st.integers(1, 6), st.sampled_from(list(map(int, RolloutState))), st.integers(0, 3), st.just("")
    ),
)


@settings(deadline=None)
@given(st.lists(COMMANDS, max_size=20))
def test_a_restored_machine_is_the_same_and_holds_one_or_two_versions(commands: list[Any]) -> None:
    world = World()
    world.do(FIRST)
    for command in commands:
        world.do(command)
        # As it comes back from a snapshot: plain lists.
        state = json.loads(json.dumps(world.control.state()))
        assert Control.restore(state).state() == world.control.state()
        history = world.control.settings
        assert set(world.holds("gateway-0", "shard-0", "shard-1", "")) <= {history.applied, history.rolling} - {0}
        rolling = [v.version for v in history.versions.values() if v.state == RolloutState.ROLLING]
        assert rolling == [history.rolling] * bool(history.rolling)
