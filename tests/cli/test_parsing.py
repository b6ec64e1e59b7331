"""Reading recordings: what each line becomes, and what is said of a line that cannot be meant."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from exchange.cli.replay.formats import guess, read
from exchange.cli.replay.formats.bitstamp import read_bitstamp
from exchange.cli.replay.formats.flow import HEADER, read_flow
from exchange.cli.replay.formats.lobster import read_lobster
from exchange.cli.replay.recording import Kind, RecordingInvalid, ReplayCommand

GTC, IOC, FOK = 1, 2, 3
BUY, SELL = 1, 2


def created(order: int, price: str = '"10.00"', amount: str = '"1.00000000"', kind: str = "order_created") -> str:
    return f'5 {kind} {{"id": {order}, "price": {price}, "amount": {amount}, "order_type": 0}}'


# ---------------------------------------------------------------- flow


def test_each_flow_command_keeps_what_it_says() -> None:
    lines = [HEADER, "1,NEW,a,B,10,5,FOK", "2,MARKET,b,S,,7,", "3,CANCEL,a,,,,", "", "4,REPLACE,b,,9,2,"]
    recording = read_flow("flow", lines)
    assert recording.commands == [
        ReplayCommand(1, 0, Kind.NEW, "a", BUY, 10, 5, FOK),
        ReplayCommand(2, 0, Kind.MARKET, "b", SELL, 0, 7, 0),
        ReplayCommand(3, 0, Kind.CANCEL, "a", 0, 0, 0, 0),
        ReplayCommand(4, 0, Kind.REPLACE, "b", 0, 9, 2, 0),
    ]
    assert not recording.has_times
    assert not recording.trades


def test_a_flow_may_have_windows_line_ends_and_no_commands() -> None:
    assert read_flow("flow", [HEADER + "\r\n"]).commands == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,NEW,a,B,10,5", "7 columns"),
        ("x,NEW,a,B,10,5,GTC", "seq as a whole number"),
        ("1,BUY,a,B,10,5,GTC", "cmd NEW, MARKET, CANCEL or REPLACE, was 'BUY'"),
        ("1,NEW,a,X,10,5,GTC", "side B or S, was 'X'"),
        ("1,NEW,a,,10,5,GTC", "side B or S, was ''"),
        ("1,NEW,a,B,0,5,GTC", "price as a whole number of at least 1, was '0'"),
        ("1,NEW,a,B,1_0,5,GTC", "price as a whole number"),
        ("1,NEW,a,B,-1,5,GTC", "price as a whole number"),
        ("1,NEW,a,B,10,,GTC", "qty as a whole number"),
        ("1,NEW,a,B,10,9223372036854775808,GTC", "qty as a whole number"),
        ("1,NEW,a,B,10,5,DAY", "tif GTC, IOC or FOK, was 'DAY'"),
        ("1,NEW,a b,B,10,5,GTC", "id of 1 to 36"),
        ("1,CANCEL,,,,,", "id of 1 to 36"),
        ("1,NEW,first,B,10,5,GTC", "id of its own for each order, was 'first' as on line 2"),
    ],
)
def test_a_broken_flow_line_is_named_with_what_was_expected(line: str, said: str) -> None:
    with pytest.raises(RecordingInvalid) as caught:
        read_flow("flow.csv", [HEADER, "1,NEW,first,B,10,5,GTC", line])
    assert str(caught.value).startswith("flow.csv:3: expected ")
    assert said in str(caught.value)
    assert caught.value.line == 3
    assert caught.value.code == "RECORDING_INVALID"


def test_a_flow_without_its_header_is_refused_rather_than_short_by_a_line() -> None:
    with pytest.raises(RecordingInvalid, match=r"flow\.csv:1: expected the header seq,cmd"):
        read_flow("flow.csv", ["1,NEW,a,B,10,5,GTC"])


# ---------------------------------------------------------------- bitstamp


def test_a_bitstamp_float_is_rounded_and_its_text_is_exact() -> None:
    trade = '1 trade {"price": 236.47, "amount": 1.7885566900000002, "id": 1}'
    recording = read_bitstamp("log", [trade, created(7, '"236.47"', '"0.00000001"')])
    assert recording.trades == [(23_647, 178_855_669)]
    assert recording.commands == [ReplayCommand(2, 5_000_000, Kind.NEW, "7", BUY, 23_647, 1, GTC)]


def test_of_an_order_that_was_resting_before_the_log_the_first_mention_counts() -> None:
    lines = [
        created(1),
        created(30, amount='"3.00000000"', kind="order_changed"),
        created(30, amount='"2.00000000"', kind="order_deleted"),
        created(4, amount='"4.00000000"', kind="order_deleted"),
        created(50, amount='"0.00000000"', kind="order_deleted"),
        created(1, amount='"0.50000000"', kind="order_changed"),
    ]
    recording = read_bitstamp("log", lines)
    entered = [(c.kind, c.order, c.quantity) for c in recording.commands]
    assert entered[:2] == [(Kind.NEW, "4", 400_000_000), (Kind.NEW, "30", 300_000_000)]
    assert [order for kind, order, _ in entered[2:] if kind == Kind.CANCEL] == ["30", "4", "50"]
    assert recording.commands[0].time_ns == 5_000_000
    assert recording.notes == ["2 orders were resting before the recording began"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("soon order_created {}", "time as a whole number"),
        ("1 order_made {}", "order_created, order_changed, order_deleted, trade or order_book, was 'order_made'"),
        ("1", "was ''"),
        ("1 trade [1]", "a JSON object"),
        ("1 trade {", "JSON after the kind"),
        ('1 trade {"price": 1}', "a field 'amount', was price"),
        ('1 trade {"price": Infinity, "amount": 1}', "price as a number"),
        ('1 trade {"price": NaN, "amount": 1}', "price as a number"),
        ('1 trade {"price": true, "amount": 1}', "price as a number"),
        (created(7, price='"10.001"'), "at most 2 decimals, was '10.001'"),
        (created(7, price='"-1"'), "price as a number"),
        (created(7, amount='"0"'), "amount as a number"),
        (created(-7), "id as a whole number"),
        (created(7).replace('"order_type": 0', '"order_type": 2'), "order_type 0 for a bid or 1 for an ask, was 2"),
        (created(1), "an id of its own for each order, was '1' as on line 1"),
    ],
)
def test_a_broken_bitstamp_line_is_named_with_what_was_expected(line: str, said: str) -> None:
    with pytest.raises(RecordingInvalid) as caught:
        read_bitstamp("day.log", [created(1), line])
    assert str(caught.value).startswith("day.log:2: expected ")
    assert said in str(caught.value)


# ---------------------------------------------------------------- lobster


def test_each_lobster_message_becomes_its_command() -> None:
    lines = [
        "34200.000000001,1,11,10,1000000,1",
        "34200.1,1,12,10,1010000,-1",
        "34200.2,2,12,4,1010000,-1",
        "34200.3,4,12,3,1010000,-1",
        "34200.4,5,0,9,1005000,1",
        "34200.5,6,-1,9,1005000,-1",
        "34200.6,7,0,0,-1,-1",
        "34200.7000000009,3,11,10,1000000,1,MPID",
    ]
    recording = read_lobster("messages", lines)
    at = 34_200_000_000_000
    assert recording.commands == [
        ReplayCommand(1, at + 1, Kind.NEW, "11", BUY, 1_000_000, 10, GTC),
        ReplayCommand(2, at + 100_000_000, Kind.NEW, "12", SELL, 1_010_000, 10, GTC),
        ReplayCommand(3, at + 200_000_000, Kind.REDUCE, "12", SELL, 0, 4, 0),
        ReplayCommand(4, at + 300_000_000, Kind.NEW, "x4", BUY, 1_010_000, 3, IOC),
        ReplayCommand(8, at + 700_000_000, Kind.CANCEL, "11", BUY, 0, 0, 0),
    ]
    assert recording.trades == [(1_010_000, 3)]
    assert recording.notes == ["1 hidden executions, 1 crosses, 1 halts passed over"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("34200.1,1,11,10,1000000", "6 columns"),
        ("noon,1,11,10,1000000,1", "time as seconds after midnight, was 'noon'"),
        ("-1,1,11,10,1000000,1", "time as seconds"),
        ("NaN,1,11,10,1000000,1", "time as seconds"),
        ("34200.1,8,11,10,1000000,1", "type 1 to 7, was '8'"),
        ("34200.1,1,11,0,1000000,1", "size as a whole number of at least 1"),
        ("34200.1,1,11,10,0,1", "price as a whole number of at least 1"),
        ("34200.1,1,11,10,1000000,0", "direction 1 or -1, was '0'"),
    ],
)
def test_a_broken_lobster_line_is_named_with_what_was_expected(line: str, said: str) -> None:
    with pytest.raises(RecordingInvalid) as caught:
        read_lobster("messages.csv", ["34200,7,0,0,0,1", line])
    assert str(caught.value).startswith("messages.csv:2: expected ")
    assert said in str(caught.value)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "line", "format_name"),
    [
        ("a.csv", HEADER + "\n", "flow"),
        ("a.log", created(1), "bitstamp"),
        ("a.csv", "34200.1,1,11,10,1000000,1", "lobster"),
        ("AMZN_2012-06-21_message_10.csv", "34200.1,9,11", "lobster"),
        ("a.csv", "1,2,3", ""),
        ("a.csv", "", ""),
    ],
)
def test_the_format_is_told_from_the_first_line_or_the_name(name: str, line: str, format_name: str) -> None:
    assert guess(name, line) == format_name


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_file_is_unpacked_as_its_name_says(suffix: str, tmp_path: Path) -> None:
    text = f"{HEADER}\n1,NEW,a,B,10,5,GTC\n".encode()
    packed = {"": text, ".gz": gzip.compress(text), ".xz": lzma.compress(text)}[suffix]
    path = tmp_path / f"flow.csv{suffix}"
    path.write_bytes(packed)
    assert len(read(path).commands) == 1


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_a_file_that_was_cut_or_is_not_packed_is_refused(suffix: str, keep: float, tmp_path: Path) -> None:
    text = (f"{HEADER}\n" + "".join(f"{n},NEW,{n},B,{n},5,GTC\n" for n in range(1, 500))).encode()
    packed = gzip.compress(text) if suffix == ".gz" else lzma.compress(text)
    path = tmp_path / f"flow.csv{suffix}"
    path.write_bytes(packed[: int(len(packed) * keep)] or b"plain text")
    with pytest.raises(RecordingInvalid, match="expected a file that can be read"):
        read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingInvalid, match=r"gone\.csv: expected a file that can be read: No such file"):
        read(tmp_path / "gone.csv")


def test_bytes_that_are_no_text_are_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "flow.csv"
    path.write_bytes(f"{HEADER}\n".encode() + b"1,NEW,\xff\xfe,B,1,1,GTC\n")
    with pytest.raises(RecordingInvalid, match=":2: expected an id"):
        read(path)


def test_a_named_format_is_taken_over_the_guess(tmp_path: Path) -> None:
    path = tmp_path / "flow.csv"
    path.write_text(f"{HEADER}\n")
    with pytest.raises(RecordingInvalid, match=":1: expected direction 1 or -1, was 'qty'"):
        read(path, "lobster")
