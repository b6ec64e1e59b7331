"""The page of a run says what was found, needs nothing from elsewhere, and takes runs in any state."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from chaos.report.account import LatencyRow, faults_of, figures_of, latency_rows, phases_of, stages_of, trigger_of
from chaos.report.page import changes_since, incident_rows, render, write_report
from chaos.report.reading import NotARun, previous_of, read_run
from chaos.run.public import ANNOUNCEMENTS_FILE, BOARD_FILE, PUBLIC, Announced, Published
from chaos.run.record import Check, Event, LineWriter, Verdict
from tests.chaos.report.synthetic import events_of, verdict_of, write_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \" ' & {{ 7 * 7 }}"
VOID = frozenset({"meta", "link", "br", "img"})


class Page(HTMLParser):
    """Elements, the text of each, and whether they are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_what_the_public_was_told_stands_by_time_and_hostile_words_are_text(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    run = read_run(directory)
    assert run.manifest is not None
    assert "What the public was told" not in Page(render(run)).text
    begun_ns = run.manifest.begun_monotonic_ns
    (directory / PUBLIC).mkdir()
    boards = [("operational", "online", -3), ("major_outage", "unknown", 11), ("operational", "online", 30)]
    with LineWriter(directory / PUBLIC / BOARD_FILE) as writer:
        for status, mode, at_s in boards:
            components = {"trading-a-b": (status, mode, "A-B")}
            at_ns = begun_ns + at_s * 10**9
            writer.write(Published(monotonic_ns=at_ns, time_ns=0, components=components, incidents=()))
    with LineWriter(directory / PUBLIC / ANNOUNCEMENTS_FILE) as writer:
        told = {"delivery": "d", "subject": "incident-1", "title": "Trading disrupted", "status": "investigating"}
        writer.write(Announced(monotonic_ns=begun_ns + 15 * 10**9, **told, latest=HOSTILE))
    text = Page(render(read_run(directory))).text
    first, second, last = "trading-a-b: major outage (unknown)", "Trading disrupted. ", "operational (online)"
    assert text.index(first) < text.index(second) < text.index(last)
    assert HOSTILE in text


def test_a_page_begins_with_the_verdict_and_has_every_part(tmp_path: Path) -> None:
    page = Page(render(read_run(write_run(tmp_path / "run"))))
    text = page.text
    assert text.index("Held: all of 7 checks.") < text.index("Time line") < text.index("Service levels")
    parts = ("Invariants", "What must really have happened", "Latency", "The incident, and this run", "To do it again")
    assert all(part in text for part in parts)
    assert "chaos run okx-2023-07-05 --seed 1" in text
    assert "5,120 looked at" in text


def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = render(read_run(write_run(tmp_path / "run")))
    page = Page(html)
    loaded = [v for _, attributes in page.elements for n, v in attributes.items() if n in {"src", "href", "action"}]
    assert all(value.startswith(("data:", "#")) for value in loaded)
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_pictures_and_tables_are_named_and_ids_are_used_once(tmp_path: Path) -> None:
    page = Page(render(read_run(write_run(tmp_path / "run"))))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(pictures) == 2 * 6, "phases, requests, stages, delay, memory and percentiles, each wide and narrow"
    assert all(set(svg["aria-labelledby"].split()) <= set(ids) for svg in pictures)
    assert len(page.all("table")) == len(page.all("caption"))


def test_hostile_text_is_text(tmp_path: Path) -> None:
    check = Check(name="I1", held=False, wanted=HOSTILE, found=HOSTILE, looked_at=1, evidence=(HOSTILE,))
    verdict = Verdict(name="x", expect="hold", exit_code=1, summary=HOSTILE, checks=(check,))
    events = [
        *events_of(is_naive=False),
        Event(t=12.0, kind="fault", name=HOSTILE, what="injected", target=HOSTILE, detail=HOSTILE),
    ]
    html = render(read_run(write_run(tmp_path / "run", verdict=verdict, events=events)))
    plain = render(read_run(write_run(tmp_path / "plain")))
    page = Page(html)
    assert len(page.all("script")) == len(Page(plain).all("script")) == 2
    assert page.all("img") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "{{ 7 * 7 }}" in page.text


def test_the_figures_for_the_script_are_those_of_the_samples(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    html = render(run)
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    goodput = next(curve for curve in data["charts"]["requests"] if curve["name"] == "goodput")
    assert goodput["points"] == [[s.t + 0.5, round(s.goodput_per_s, 2)] for s in run.samples]


def test_phases_faults_and_stages_are_those_of_the_log(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert [(p.name, p.begin_s, p.end_s) for p in phases_of(run)] == [
        ("steady", 0.0, 10.0),
        ("restart-into-surge", 10.0, 30.0),
        ("aftermath", 30.0, 75.0),
    ]
    assert trigger_of(run) == (10.0, 30.0)
    (fault,) = faults_of(run)
    assert (fault.name, fault.begin_s, fault.end_s) == ("kill-process shard-0", 11.0, 11.1)
    assert fault.detail == "4711 is gone"
    assert [(s.name, s.begin_s) for s in stages_of(run)["shard-0"]] == [
        ("OPEN", 0.0),
        ("DOWN", 11.2),
        ("CANCEL_ONLY", 14.2),
        ("POST_ONLY", 16.4),
        ("LIMITED", 19.0),
        ("OPEN", 29.4),
    ]


def test_latency_is_exact_with_histograms_and_says_so_without(tmp_path: Path) -> None:
    exact = latency_rows(read_run(write_run(tmp_path / "exact")))
    rough_run = read_run(write_run(tmp_path / "rough", with_histograms=False))
    rough = latency_rows(rough_run)

    def counts(rows: list[LatencyRow]) -> list[tuple[str, str, int]]:
        return [(row.kind, row.phase, row.count) for row in rows]

    assert counts(exact) == counts(rough)
    assert all(row.is_exact for row in exact)
    assert not any(row.is_exact for row in rough)
    assert all(row.p50_ms <= row.p99_ms <= row.max_ms for row in exact)
    assert "that of the median second" in Page(render(rough_run)).text


def test_the_verdicts_own_figures_come_before_those_of_the_samples(tmp_path: Path) -> None:
    figures = figures_of(read_run(write_run(tmp_path / "run")))
    assert figures["goodput"] == 0.93
    assert figures["recover_s"] == 3.0
    assert 1.0 < figures["amplification"] < 1.1


def test_the_published_time_line_lies_beside_ours(tmp_path: Path) -> None:
    held = {row.utc: row.ours for row in incident_rows(read_run(write_run(tmp_path / "held")))}
    assert held["08:20"] == "11 s: kill-process shard-0"
    assert held["10:00"] == "33 s: recovered, 3 s after the trigger"
    naive = read_run(write_run(tmp_path / "naive", is_naive=True))
    assert incident_rows(naive)[-1].ours == "not recovered by 75 s"


def test_the_run_before_is_the_last_of_the_same_experiment(tmp_path: Path) -> None:
    write_run(tmp_path / "oldest", begun_utc="2026-11-23T20:00:00Z")
    write_run(tmp_path / "old", begun_utc="2026-11-24T20:00:00Z", seed=2)
    write_run(tmp_path / "other", begun_utc="2026-11-25T10:00:00Z", is_naive=True)
    write_run(tmp_path / "later", begun_utc="2026-11-26T20:00:00Z")
    run = read_run(write_run(tmp_path / "run"))
    before = previous_of(run)
    assert before is not None
    assert before.directory.name == "old"
    assert {change.what for change in changes_since(before, run)} == {"seed", "schedule"}


@pytest.mark.parametrize("name", ["manifest.json", "events.jsonl", "samples.jsonl", "verdict.json", "experiment.yaml"])
@pytest.mark.parametrize("state", ["missing", "empty", "half", "other version", "binary"])
def test_what_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path, name: str, state: str) -> None:
    path = write_run(tmp_path / "run", with_histograms=False) / name
    content = path.read_bytes()
    (tmp_path / "run" / "histograms.hlog").write_bytes(b"\xff\x00")
    if state == "missing":
        path.unlink()
    else:
        other = b'{"version": 9}\n'
        path.write_bytes({"empty": b"", "half": content[:-20], "other version": other, "binary": b"\xff\xfe\n"}[state])
    run = read_run(write_report(read_run(tmp_path / "run")).parent)
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    if not (name == "experiment.yaml" and state == "half"):
        # YAML that is cut in a sentence is still YAML.
        assert any(line.startswith(name) for line in run.missing)
    assert any(line.startswith("histograms.hlog: not read") for line in run.missing)
    assert "This report is not complete." in page.text


def test_a_run_that_goes_on_has_a_page_without_a_verdict(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    (directory / "verdict.json").unlink()
    assert "No verdict" in Page(render(read_run(directory))).text


def test_a_verdict_with_an_exit_code_that_is_not_known_is_told(tmp_path: Path) -> None:
    verdict = msgspec.structs.replace(verdict_of("x", is_naive=False), exit_code=99)
    assert "Says nothing: exit code 99" in Page(render(read_run(write_run(tmp_path / "run", verdict=verdict)))).text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotARun, match="expected a run's directory") as refused:
            read_run(path)
        assert refused.value.code == "RUN_INVALID"


@pytest.mark.parametrize("name", ["manifest.json", "events.jsonl", "samples.jsonl", "verdict.json"])
def test_one_file_alone_has_a_page(tmp_path: Path, name: str) -> None:
    content = (write_run(tmp_path / "whole", with_histograms=False) / name).read_bytes()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_bytes(content)
    assert "This report is not complete." in Page(render(read_run(tmp_path / "run"))).text


def test_a_shard_that_comes_back_without_a_stage_is_in_the_one_that_was_seen(tmp_path: Path) -> None:
    events = [event for event in events_of(is_naive=False) if event.kind != "stage" or event.t == 0]
    events.append(Event(t=29.5, kind="component", name="shard-0", what="UP"))
    stages = stages_of(read_run(write_run(tmp_path / "run", events=events, with_histograms=False)))["shard-0"]
    assert [(s.name, s.begin_s) for s in stages] == [("OPEN", 0.0), ("DOWN", 11.2), ("OPEN", 29.5)]
