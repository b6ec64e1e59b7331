"""Small recordings through the shard machine: what comes of each command, and the files made of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from exchange.cli import run
from exchange.cli.replay import pacer
from exchange.cli.replay.engine import replay_engine
from exchange.cli.replay.formats.flow import HEADER, read_flow
from exchange.cli.replay.formats.lobster import read_lobster
from exchange.cli.replay.outcome import Outcome, percentiles, ranked, results
from exchange.cli.replay.recording import Kind, Recording, ReplayCommand

FLOWS = Path(__file__).parents[2].parent / "shared" / "flows"


def enter(recording: Recording) -> Outcome:
    return replay_engine(recording, lambda _: None, lambda _: None)


def fates(recording: Recording) -> list[str]:
    return [",".join(map(str, row)) for row in results(recording, enter(recording))]


def flow(*lines: str) -> Recording:
    return read_flow("flow", [HEADER, *(f"{number},{line}" for number, line in enumerate(lines, 1))])


def test_a_market_order_takes_what_is_there_and_never_rests() -> None:
    recording = flow("NEW,1,S,100,5,GTC", "NEW,2,S,101,5,GTC", "MARKET,3,B,,20,")
    assert fates(recording)[2] == "3,CANCELLED,10,10,0,0,0,0"
    assert [(t.maker, t.price, t.quantity) for t in enter(recording).trades] == [("1", 100, 5), ("2", 101, 5)]


def test_fill_or_kill_fills_whole_or_does_nothing() -> None:
    recording = flow("NEW,1,S,100,5,GTC", "NEW,2,B,100,6,FOK", "NEW,3,B,100,5,FOK")
    assert fates(recording)[1:] == ["2,CANCELLED,0,6,0,0,100,5", "3,FILLED,5,0,0,0,0,0"]


def test_a_replaced_order_goes_to_the_back_of_the_queue_and_may_trade_at_once() -> None:
    recording = flow(
        "NEW,1,S,100,5,GTC",
        "NEW,2,S,100,5,GTC",
        "REPLACE,1,,100,3,",
        "NEW,3,B,100,6,GTC",
        "NEW,4,B,99,2,GTC",
        "REPLACE,4,,100,9,",
        "REPLACE,4,,101,1,",
        "REPLACE,2,,101,1,",
    )
    assert fates(recording) == [
        "1,RESTING,0,5,0,0,100,5",
        "2,RESTING,0,5,0,0,100,10",
        "3,REPLACE_RESTING,0,3,0,0,100,8",
        "4,FILLED,6,0,0,0,100,2",
        "5,RESTING,0,2,99,2,100,2",
        "6,REPLACE_RESTING,2,7,100,7,0,0",
        "7,REPLACE_RESTING,0,1,101,1,0,0",
        "8,REPLACE_REJECT,0,0,101,1,0,0",
    ]
    assert [(t.taker, t.maker, t.quantity) for t in enter(recording).trades] == [
        ("3", "2", 5),
        ("3", "1", 1),
        ("4", "1", 2),
    ]


def test_both_sides_may_come_from_one_hand_without_self_trade_prevention() -> None:
    assert len(enter(flow("NEW,1,S,100,5,GTC", "NEW,2,B,100,5,GTC")).trades) == 1


def test_an_order_named_before_it_is_entered_still_goes_under_the_account_of_its_side() -> None:
    recording = flow("CANCEL,9,,,,", "NEW,1,B,100,5,GTC", "NEW,9,S,100,5,GTC", "CANCEL,9,,,,")
    assert [fate.split(",")[1] for fate in fates(recording)] == ["CANCEL_REJECT", "RESTING", "FILLED", "CANCEL_REJECT"]


def test_orders_are_ranked_best_price_first_and_by_priority_within_a_price() -> None:
    outcome = enter(flow("NEW,1,B,99,1,GTC", "NEW,2,B,100,2,GTC", "NEW,3,B,100,3,GTC", "REPLACE,2,,100,4,"))
    assert ranked(outcome.orders) == [("B", 100, 0, "3", 3), ("B", 100, 1, "2", 4), ("B", 99, 0, "1", 1)]
    assert [tuple(level) for level in outcome.levels] == [(1, 100, 7, 2), (1, 99, 1, 1)]


def test_a_partial_cancel_keeps_the_place_in_the_queue() -> None:
    lines = ["1,1,11,10,100,1", "2,1,12,10,100,1", "3,2,11,4,100,1", "4,4,11,6,100,1", "5,4,12,10,100,1"]
    recording = read_lobster("messages", lines)
    outcome = enter(recording)
    assert [(t.maker, t.quantity) for t in outcome.trades] == [("11", 6), ("12", 10)]
    assert results(recording, outcome)[2][:4] == (3, "REDUCE_OK", 0, 4)


@pytest.mark.parametrize("taken", [10, 11])
def test_a_partial_cancel_of_all_that_is_left_cancels_the_order(taken: int) -> None:
    recording = read_lobster("messages", ["1,1,11,10,100,1", f"2,2,11,{taken},100,1", "3,3,11,1,100,1"])
    assert fates(recording)[1:] == ["2,CANCEL_OK,0,10,0,0,0,0", "3,CANCEL_REJECT,0,0,0,0,0,0"]


def test_a_partial_cancel_below_what_is_filled_cancels_the_rest() -> None:
    lines = ["1,1,11,10,100,1", "2,4,11,6,100,1", "3,2,11,4,100,1"]
    assert fates(read_lobster("messages", lines))[2] == "3,CANCEL_OK,0,4,0,0,0,0"


def test_percentiles_are_exact() -> None:
    assert percentiles([]) == {}
    assert percentiles(range(1, 1_001)) == {"p50": 501, "p90": 901, "p99": 991, "p999": 1_000, "max": 1_000}


def test_the_recorded_times_pace_a_replay_from_its_first_command_on() -> None:
    now_s = 100.0
    commands = [ReplayCommand(n, n * 1_000_000_000, Kind.CANCEL, "1", 1, 0, 0, 0) for n in (5, 6, 9)]
    delay_s = pacer(Recording(commands, 0, 0), 2.0, lambda: now_s)
    assert [delay_s(command) for command in commands] == [0.0, 0.5, 2.0]
    now_s = 103.0
    assert delay_s(commands[2]) == -1.0
    assert pacer(Recording(commands, 0, 0), 0.0, lambda: now_s)(commands[2]) == 0.0


@pytest.mark.skipif(not FLOWS.is_dir(), reason="the recorded flows are not here")
@pytest.mark.parametrize("name", ["f10k", "r10k"])
def test_the_command_writes_the_known_answers_byte_for_byte(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(FLOWS / f"{name}.csv.gz"), "--engine", "--out", str(tmp_path / name), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["commands"] == 10_000
    assert len(figures["files"]) == 4
    for path in map(Path, figures["files"]):
        assert path.read_bytes() == gzip.decompress((FLOWS / f"{path.name}.gz").read_bytes()), path.name


@pytest.mark.skipif(not FLOWS.is_dir(), reason="the recorded flows are not here")
def test_the_command_counts_the_trades_of_a_real_day_that_came_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", str(FLOWS / "bitstamp-btcusd-2015-05-01.log.xz"), "--engine", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["recorded_trades"], figures["recorded_trades_matched"] >= 509) == (575, True)
    assert figures["notes"] == ["160 orders were resting before the recording began"]
