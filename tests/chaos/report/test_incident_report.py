"""The draft of an incident report has the log's figures, and marks what only a person can say."""

from __future__ import annotations

from pathlib import Path

from chaos.report.incident_report import draft
from chaos.report.reading import read_run
from chaos.run.record import Event
from tests.chaos.report.synthetic import events_of, write_run


def test_a_draft_has_every_section_the_times_and_the_gaps(tmp_path: Path) -> None:
    text = draft(read_run(write_run(tmp_path / "run", is_naive=True)))
    titles = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["Summary", "Impact", "Time line (UTC)", "Cause", "Resolution", "Prevention"]
    assert "| 20:00:11 | kill-process shard-0 injected |" in text
    assert "20:00:11: kill-process shard-0 (4711 is gone)" in text
    assert "Not recovered by the end of the log." in text
    assert "[to be written: root cause: why it did what it did]" in text
    assert "Recovered after the trigger: expected ≤ 30 s" in text


def test_a_run_that_recovered_says_when(tmp_path: Path) -> None:
    text = draft(read_run(write_run(tmp_path / "run")))
    assert "Recovered 3 s after the end of the trigger." in text
    assert "shard-0: DOWN 20:00:11, CANCEL\\_ONLY 20:00:14" in text


def test_hostile_text_makes_no_markup(tmp_path: Path) -> None:
    events = [*events_of(is_naive=False), Event(t=5, kind="component", name="a|b\n## x", what="<b>", detail="[l](u)")]
    text = draft(read_run(write_run(tmp_path / "run", events=events)))
    assert "a\\|b \\#\\# x \\<b\\>: \\[l\\](u)" in text


def test_a_run_of_which_nearly_nothing_is_left_gives_a_draft_of_gaps(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"")
    text = draft(read_run(tmp_path))
    assert "[to be written: trigger: the log has no fault]" in text
    assert "## Not known" in text
