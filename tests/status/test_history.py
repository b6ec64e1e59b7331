"""The history: kept through restarts and upgrades, and through disks that fail."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from status.history.days import Days
from status.history.delays import Delays
from status.history.export import HistoryMissing, export_history
from status.history.schema import MIGRATIONS, VERSION, HistoryTooNew
from status.history.store import Store
from status.model import ComponentStatus, Notice
from status.settings import HistoryRules
from status.watch.looks import Kind
from tests.status.observed import SECOND, START, look


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "history.db")
    store.open()
    yield store
    await store.close()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path, store: Store) -> None:
    store.put("notice", "n-1", 1, Notice(id="n-1", body="Hello.", at_ns=1))
    store.put("notice", "n-1", 2, Notice(id="n-1", body="Hello again.", at_ns=2))
    store.put("notice", "n-2", 2, Notice(id="n-2", body="Gone.", at_ns=2))
    store.delete("notice", "n-2")
    assert await store.flush()
    other = Store(tmp_path / "history.db")
    other.open()
    assert other.records("notice", Notice) == {"n-1": Notice(id="n-1", body="Hello again.", at_ns=2)}
    await other.close()


async def test_a_damaged_file_is_put_aside_and_the_service_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"this is no database at all, whatever its name says" * 100)
    store = Store(path)
    store.open()
    store.put("notice", "n-1", 1, Notice(id="n-1", body="Hello.", at_ns=1))
    assert await store.flush()
    assert len(list(tmp_path.glob("history.db.damaged-*"))) == 1
    await store.close()


async def test_what_cannot_be_written_is_written_once_it_can(tmp_path: Path, store: Store) -> None:
    blocker = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    assert store._connection is not None
    store._connection.execute("PRAGMA busy_timeout = 1")
    blocker.execute("BEGIN IMMEDIATE")
    store.put("notice", "n-1", 1, Notice(id="n-1", body="Hello.", at_ns=1))
    assert not await store.flush()
    assert "locked" in store.error
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await store.flush()
    assert store.error == ""
    assert list(store.records("notice", Notice)) == ["n-1"]


async def test_without_a_place_to_write_it_goes_on_from_memory(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    store = Store(tmp_path / "history.db")
    store.open()
    store.put("notice", "n-1", 1, Notice(id="n-1", body="Hello.", at_ns=1))
    assert not await store.flush()
    assert store.error
    assert store.records("notice", Notice) == {}
    await store.close()


async def test_an_older_file_is_upgraded_and_a_newer_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(MIGRATIONS[0])
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO blips VALUES ('funds', 1, 2, 'major_outage')")
    connection.close()
    store = Store(path)
    store.open()
    assert store.read("PRAGMA user_version") == [(VERSION,)]
    assert store.read("SELECT * FROM blips") == [("funds", 1, 2, "major_outage")]
    await store.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(HistoryTooNew, match="use the newer service"):
        Store(path).open()


async def test_what_is_too_old_is_forgotten(store: Store) -> None:
    now_ns = START + 1_000 * 86_400 * SECOND
    store.put_blip("funds", START, START + SECOND, "major_outage")
    store.put_blip("funds", now_ns - SECOND, now_ns, "major_outage")
    await store.flush()
    store.trim(now_ns, HistoryRules())
    await store.flush()
    assert [row[1] for row in store.read("SELECT * FROM blips")] == [now_ns - SECOND]


def test_days_count_the_measured_time_by_state() -> None:
    days = Days()
    midnight = START // (86_400 * SECOND) * 86_400 * SECOND
    moments = [
        (0, ComponentStatus.OPERATIONAL),
        (2, ComponentStatus.MAJOR_OUTAGE),
        (5, ComponentStatus.DEGRADED),
        (6, ComponentStatus.MAINTENANCE),
        (8, ComponentStatus.OPERATIONAL),
        (500, ComponentStatus.OPERATIONAL),  # nobody looked meanwhile: that counts as nothing
        (501, ComponentStatus.OPERATIONAL),
    ]
    for second, status in moments:
        days.note(midnight + second * SECOND, "funds", status)
    (day,) = days.of("funds", (), midnight + 600 * SECOND)
    assert (day.measured_s, day.down_s, day.degraded_s, day.maintenance_s) == (9.0, 3.0, 1.0, 2.0)


def test_delays_are_condensed_to_buckets_of_time() -> None:
    delays = Delays(bucket_s=10)
    for second in range(25):
        delays.see(look(Kind.ORDER, second, instrument="BTC-USDT", took_ms=second + 1.0))
    finished = delays.finished(START + 20 * SECOND)
    assert [(delay.component, delay.looks, delay.p50_ms) for delay in finished] == [
        ("trading-btc-usdt", 10, 5.5),
        ("trading-btc-usdt", 10, 15.5),
    ]
    assert delays.finished(START + 21 * SECOND) == []


async def test_all_of_it_can_be_exported_while_it_is_written(tmp_path: Path, store: Store) -> None:
    store.put("notice", "n-1", 1, Notice(id="n-1", body="Hello.", at_ns=1))
    store.put_blip("funds", 1, 2, "major_outage")
    await store.flush()
    exported = export_history(tmp_path / "history.db")
    assert exported["notices"] == [{"id": "n-1", "body": "Hello.", "at_ns": 1}]
    assert exported["blips"] == [{"component": "funds", "began_ns": 1, "ended_ns": 2, "worst": "major_outage"}]
    with pytest.raises(HistoryMissing):
        export_history(tmp_path / "none.db")
