"""What the JSON documents, the badges and the feed say of a board."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import msgspec
import pytest

from status.model import Day, Latency, TradingMode
from status.web import badges, charts, feed, okx, openapi
from status.web.documents import Current, Documents
from status.web.history import percent_words, uptime
from status.web.times import duration
from tests.status.web import scenes
from tests.status.web.scenes import NOW_NS, S

ATOM = "{http://www.w3.org/2005/Atom}"


def said(documents: Documents, path: str) -> Any:
    document = documents.get(path)
    assert document is not None, path
    return json.loads(document.body)


def test_the_summary_has_the_unresolved_incidents_and_the_components_in_their_groups() -> None:
    summary = said(Documents(scenes.incident(), stale=False), "/api/v2/summary.json")
    assert set(summary) >= {"page", "components", "incidents", "scheduled_maintenances", "status"}
    assert summary["status"]["indicator"] == "critical"
    assert summary["status"]["description"] == "Major Service Outage"
    assert [incident["id"] for incident in summary["incidents"]] == ["inc-1"]
    group = next(c for c in summary["components"] if c["group"])
    members = [c["id"] for c in summary["components"] if c["group_id"] == group["id"]]
    assert members == group["components"]
    assert group["status"] == "major_outage"


def test_updates_come_newest_first_and_show_what_was_corrected() -> None:
    incident = said(Documents(scenes.incident(), stale=False), "/api/v2/incidents/inc-1.json")["incident"]
    assert [update["id"] for update in incident["incident_updates"]] == ["u4", "u3", "u2", "u1"]
    corrected = incident["incident_updates"][2]
    assert corrected["body_before"] == "Two machines restarted."
    assert corrected["updated_at"] > corrected["created_at"]
    assert incident["incident_updates"][3]["affected_components"][0]["old_status"] == "operational"


def test_maintenance_is_in_the_list_of_its_state() -> None:
    documents = Documents(scenes.maintenance(), stale=False)
    base = "/api/v2/scheduled-maintenances"

    def ids(path: str) -> list[str]:
        return [m["id"] for m in said(documents, base + path)["scheduled_maintenances"]]

    assert ids("/upcoming.json") == ["mnt-2"]
    assert ids("/active.json") == ["mnt-1"]
    assert ids(".json") == ["mnt-1", "mnt-2", "mnt-3", "mnt-4"]


def test_a_draft_of_a_post_mortem_is_not_public() -> None:
    board = scenes.incident()
    drafted = msgspec.structs.replace(board.incidents[0], postmortem="between us")
    documents = Documents(msgspec.structs.replace(board, incidents=(drafted,)), stale=False)
    for path in documents.paths():
        document = documents.get(path)
        assert document is not None
        assert b"between us" not in document.body, path


@pytest.mark.parametrize(
    ("mode", "state"),
    [(TradingMode.RECOVERING, "ongoing"), (TradingMode.CANCEL_ONLY, "pre_open"), (TradingMode.POST_ONLY, "pre_open")],
)
def test_okx_says_pre_open_once_every_market_takes_something_again(mode: TradingMode, state: str) -> None:
    answer = okx.system_status(scenes.incident(mode=mode))
    (row,) = answer["data"]
    assert row["state"] == state
    assert all(isinstance(value, str) for value in row.values())
    assert row["begin"] == str(NOW_NS // 1_000_000 - 40_000)
    assert bool(row["preOpenBegin"]) is (state == "pre_open")
    assert answer["tradingMode"][0]["mode"] == mode.value


def test_okx_gives_each_state_when_asked() -> None:
    board = scenes.maintenance()
    found = {
        state: [row["href"].rpartition("/")[2] for row in okx.system_status(board, state)["data"]]
        for state in okx.STATES
    }
    assert found == {
        "scheduled": ["mnt-2"],
        "ongoing": ["mnt-1"],
        "pre_open": [],
        "completed": ["mnt-3", "inc-old"],
        "canceled": ["mnt-4"],
    }
    assert okx.system_status(board, "scheduled")["data"][0]["scheDesc"].startswith("Rescheduled from ")


def test_uptime_leaves_maintenance_out_and_weighs_the_day_before_in_24h() -> None:
    days = [
        Day(date="2026-07-04", measured_s=86_400, down_s=8640, degraded_s=0, maintenance_s=0),
        Day(date="2026-07-05", measured_s=43_200, down_s=0, degraded_s=900, maintenance_s=3200),
    ]
    noon = 1_783_252_800 * S
    assert uptime(days, noon, "24h").percent == pytest.approx(100 * (1 - 4320 / (43_200 + 40_000)))
    assert uptime(days, noon, "7d").percent == pytest.approx(100 * (1 - 8640 / (86_400 + 40_000)))
    assert uptime([], noon, "7d").percent is None


def test_less_than_always_is_never_called_100_percent() -> None:
    assert percent_words(100.0) == "100 %"
    assert percent_words(99.999) == "99.99 %"
    assert percent_words(None) == "no data"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (65, "1 min 5 s"), (3600, "1 h"), (90_061, "1 d 1 h")])
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_bars_show_gaps_and_trouble() -> None:
    drawn = charts.uptimes(scenes.history().days["funds"], NOW_NS)
    assert drawn.width == 720
    assert drawn.absent.count("M") == 24
    assert [bar.kind for bar in drawn.bars] == ["degraded", "maintenance", "down", "degraded"]


def test_a_line_of_response_times_breaks_where_nothing_was_measured() -> None:
    points = [Latency(at_ns=at * 300 * S, p50_ms=2, p99_ms=9) for at in (1, 2, 3, 20, 21)]
    chart = charts.latency_chart(points)
    assert chart is not None
    assert chart.p99.count("M") == 2
    assert chart.top_ms == 10
    assert charts.latency_chart(points[:1]) is None


def test_the_feed_is_atom_with_an_entry_for_each_incident_and_maintenance() -> None:
    for board in (scenes.maintenance(), scenes.hostile(), scenes.empty()):
        root = ET.fromstring(feed.feed(board))
        assert root.tag == f"{ATOM}feed"
        for element in (root, *root.findall(f"{ATOM}entry")):
            for needed in ("id", "title", "updated"):
                assert element.findtext(f"{ATOM}{needed}"), needed
            assert element.find(f"{ATOM}link") is not None
        assert root.find(f"{ATOM}author/{ATOM}name") is not None
        entries = root.findall(f"{ATOM}entry")
        assert len(entries) == len(board.incidents) + len(board.maintenances)
        assert len({entry.findtext(f"{ATOM}id") for entry in entries}) == len(entries)


def test_badges_are_well_formed_whatever_a_component_is_called() -> None:
    board = scenes.hostile()
    named = msgspec.structs.replace(board.components[0], name='<b> & "c"')
    root = ET.fromstring(badges.of_component(named, board, stale=False).svg())
    assert root.get("aria-label") == '<b> & "c": outage'
    assert badges.overall(scenes.operational(), stale=False).shields()["message"] == "operational"
    assert badges.overall(scenes.operational(), stale=True).message == "unknown"
    assert badges.overall(scenes.empty(), stale=False).message == "unknown"


def _template(path: str) -> str:
    """The path in the OpenAPI document that a document's path is an instance of."""
    named = path.partition("?")[0]
    candidates = openapi.paths()
    if named in candidates:
        return named
    for candidate in candidates:
        parts, given = candidate.split("/"), named.split("/")
        if len(parts) == len(given) and all(_fits(part, is_) for part, is_ in zip(parts, given, strict=True)):
            return candidate
    return ""


def _fits(part: str, given: str) -> bool:
    before, opens, rest = part.partition("{")
    if not opens:
        return part == given
    return given.startswith(before) and given.endswith(rest.partition("}")[2])


def test_every_document_is_in_the_openapi_document_and_the_other_way_round() -> None:
    told = {_template(path) for path in Documents(scenes.maintenance(), stale=False).paths() if path != "/404"}
    assert "" not in told
    assert set(openapi.paths()) - told == {"/api/events"}


def test_operations_of_the_openapi_document_have_ids_of_their_own() -> None:
    ids = [path["get"]["operationId"] for path in openapi.paths().values()]
    assert len(ids) == len(set(ids))


def test_hostile_words_stay_words_and_a_hostile_id_gets_no_page() -> None:
    documents = Documents(scenes.hostile(), stale=False)
    assert not [path for path in documents.paths() if "passwd" in path]
    for path in documents.paths():
        document = documents.get(path)
        assert document is not None
        if document.media_type.startswith(("text/html", "image/svg")):
            assert b"<script>alert" not in document.body, path


def test_documents_are_made_once_until_the_version_or_the_freshness_changes() -> None:
    publisher = scenes.FakePublisher(scenes.operational())
    clock = [NOW_NS]
    current = Current(publisher, lambda: clock[0])
    first = current.documents()
    page = first.get("/")
    assert current.documents() is first
    assert first.get("/") is page
    clock[0] += 60 * S
    late = current.documents()
    assert late.stale
    assert late.get("/") is not page
    publisher.publish(scenes.changed(scenes.operational(), clock[0]))
    assert not current.documents().stale


@pytest.mark.parametrize("scene", list(scenes.SCENES))
def test_the_first_paint_takes_at_most_100_kb(scene: str) -> None:
    from status.web.page import static_files

    page = Documents(scenes.SCENES[scene](), stale=scene == "stale").get("/")
    assert page is not None
    assert len(page.body) + sum(len(content) for _, content in static_files().values()) <= 100_000
