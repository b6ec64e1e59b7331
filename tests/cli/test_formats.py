"""The recordings' formats, whole and broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.cli.replay.engine import replay_engine
from exchange.cli.replay.formats import read
from exchange.cli.replay.outcome import matched, summary, write_files
from exchange.cli.replay.recording import Kind, RecordingInvalid

FLOW = """seq,cmd,id,side,price,qty,tif
1,NEW,1,S,100,5,GTC
2,NEW,2,B,100,3,GTC
3,REPLACE,1,,101,4,
4,CANCEL,1,,,,
5,CANCEL,1,,,,
6,MARKET,3,B,,1,
"""
LOBSTER = """34200.000000001,1,11,10,1000000,1
34200.1,2,11,4,1000000,1
34200.2,4,11,3,1000000,1
34200.3,5,0,7,1000000,1
34200.4,3,11,3,1000000,1
"""
BITSTAMP = """1 order_changed {"price": "10.00", "amount": "1.00000000", "id": 5, "order_type": 1}
2 order_created {"price": "10.00", "amount": "0.40000000", "id": 9, "order_type": 0}
3 trade {"price": 10.0, "amount": 0.4, "id": 1}
4 order_deleted {"price": "10.00", "amount": "0.60000000", "id": 5, "order_type": 1}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_flow_is_replayed_and_written(tmp_path: Path) -> None:
    recording = read(write(tmp_path / "flow.csv", FLOW))
    outcome = replay_engine(recording, lambda _: None, lambda _: None)
    trades, results, book, orders = write_files(str(tmp_path / "out"), recording, outcome)
    assert trades.read_text().splitlines()[1:] == ["2,2,1,100,3"]
    assert results.read_text().splitlines()[1:] == [
        "1,RESTING,0,5,0,0,100,5",
        "2,FILLED,3,0,0,0,100,2",
        "3,REPLACE_RESTING,0,4,0,0,101,4",
        "4,CANCEL_OK,0,4,0,0,0,0",
        "5,CANCEL_REJECT,0,0,0,0,0,0",
        "6,CANCELLED,0,1,0,0,0,0",
    ]
    assert len(book.read_text().splitlines()) == len(orders.read_text().splitlines()) == 1
    assert summary(recording, outcome)["commands"] == 6


def test_a_lobster_execution_enters_the_other_side(tmp_path: Path) -> None:
    recording = read(write(tmp_path / "messages.csv", LOBSTER))
    assert [c.kind for c in recording.commands] == [Kind.NEW, Kind.REDUCE, Kind.NEW, Kind.CANCEL]
    outcome = replay_engine(recording, lambda _: None, lambda _: None)
    assert matched(recording, outcome) == 1
    assert [answer.rejected for answer in outcome.answers] == [False] * 4
    assert recording.notes == ["1 hidden executions, 0 crosses, 0 halts passed over"]


def test_orders_from_before_a_bitstamp_log_come_first(tmp_path: Path) -> None:
    recording = read(write(tmp_path / "day.log", BITSTAMP))
    assert [c.order for c in recording.commands] == ["5", "9", "5"]
    assert matched(recording, replay_engine(recording, lambda _: None, lambda _: None)) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FLOW + "7,FLY,4,B,1,1,GTC\n", 8),
        (FLOW + "7,NEW,4,B,one,1,GTC\n", 8),
        (LOBSTER + "34201,1,12\n", 6),
        (BITSTAMP + "5 order_created {broken\n", 5),
        ("nothing that anyone knows\n", 1),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(RecordingInvalid, match=f":{line}: expected"):
        read(write(tmp_path / "recording", text))
