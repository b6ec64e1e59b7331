"""The checker finds what it is there to find: each kind of violation, planted in a history that is right otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.invariants.findings import Findings
from chaos.load.client_log import Line
from tests.chaos.invariants.synthetic import MARKET, SHARD, SpoiltKind, SyntheticRun

TRADED = 2


@pytest.fixture
def run(tmp_path: Path) -> SyntheticRun:
    return SyntheticRun(tmp_path)


def found(findings: Findings, rule: str, words: str) -> None:
    """See that this rule is broken, in these words, and that each violation has evidence."""
    texts = [str(violation) for violation in findings.violations if violation.rule == rule]
    assert any(words in text for text in texts), str(findings)


def pick(lines: list[Line], wanted: Callable[[Line], Any], nth: int = 0) -> Line:
    return [line for line in lines if wanted(line)][nth]


def is_taken(line: Line) -> Any:
    return line["e"] == "out" and line["k"] == "place" and line["oid"]


def test_a_true_history_breaks_no_rule_and_all_of_it_is_looked_at(run: SyntheticRun) -> None:
    run.status = [status_line(1, 100, run)]
    run.write()
    findings = run.check()
    assert not findings.violations, str(findings)
    assert findings.checked["I1 acknowledged commands found in the history"] > 100
    assert findings.checked["I5 trades"] > 10
    assert findings.checked["I6 hashes that were told"] == 1
    assert findings.checked["I7 executions that were told as they happened"] > 100
    assert findings.checked["I7 updates of books"] > 100


# ---------------------------------------------------------------- I1


def test_an_acknowledged_command_behind_the_end_of_the_journal_is_lost(run: SyntheticRun) -> None:
    del run.records[-3:]
    run.write()
    found(run.check(), "I1", "and the history ends with")


def test_an_acknowledged_command_that_another_one_took_the_place_of_is_lost(run: SyntheticRun) -> None:
    epoch, payload = run.records[20]
    run.records[20] = epoch, run.records[22][1]._replace(time_ns=payload.time_ns)
    run.write()
    found(run.check(), "I1", "which in the history is")


def test_an_outcome_that_was_told_otherwise_is_found(run: SyntheticRun) -> None:
    pick(run.logs["t0"], is_taken)["filled"] += 1
    run.write()
    found(run.check(), "I1", "the history says")


def test_an_order_that_was_refused_and_took_effect_is_found(run: SyntheticRun) -> None:
    line = pick(run.logs["t0"], is_taken)
    line["o"], line["seq"] = 2, 0
    run.write()
    found(run.check(), "I1", "was refused, and took effect")


def test_an_order_that_get_order_did_not_know_and_that_took_effect_is_found(run: SyntheticRun) -> None:
    line = pick(run.logs["t0"], is_taken)
    line["o"], line["seq"] = 3, 0
    run.logs["t0"].append({"e": "order", "t": 10**6, "id": line["id"], "sym": MARKET, "found": False})
    run.write()
    found(run.check(), "I1", "GetOrder knew no such order")


def test_an_order_that_get_order_found_as_another_is_found(run: SyntheticRun) -> None:
    line = pick(run.logs["t0"], is_taken)
    run.logs["t0"].append({"e": "order", "t": 1, "id": line["id"], "sym": MARKET, "found": True, "oid": 7_777})
    run.write()
    found(run.check(), "I1", "GetOrder found order 7777")


# ---------------------------------------------------------------- I2


def test_an_order_that_takes_effect_twice_is_found(run: SyntheticRun) -> None:
    sent = pick(run.logs["t0"], lambda line: line["e"] == "send" and line["k"] == "place")
    name = sent["id"]
    payload = next(p for _, p in run.records if name.encode() in p.batches[0].segments[0].data)
    # When the shard has forgotten the order, it comes once more.
    run.later(minutes=30)
    run.apply(payload.batches[0].segments[0])
    run.write()
    found(run.check(), "I2", f"{name!r} of account 2 took effect twice")


def test_a_batch_of_a_link_that_is_there_twice_is_found(run: SyntheticRun) -> None:
    run.records.append(run.records[-1])
    run.write()
    found(run.check(), "I2", "of gateway-0 is there after")


def test_an_order_that_no_client_has_sent_so_is_found(run: SyntheticRun) -> None:
    pick(run.logs["t1"], lambda line: line["e"] == "send" and line["k"] == "place")["qty"] += 1
    run.write()
    found(run.check(), "I2", "the client sent Place(")


# ---------------------------------------------------------------- I5, I9


def test_a_trade_through_a_better_price_is_found(run: SyntheticRun) -> None:
    def trade_worse(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(*e[:6], e[6] + 1, *e[7:]) if e[0] == TRADED else e for e in events]

    run.write()
    found(run.check(SpoiltKind(trade_worse)), "I5", "not what price-time priority makes of it")


def test_a_trade_with_an_order_that_came_later_is_found(run: SyntheticRun) -> None:
    def trade_with_another(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(*e[:4], e[4] + 1, *e[5:]) if e[0] == TRADED else e for e in events]

    run.write()
    found(run.check(SpoiltKind(trade_with_another)), "I5", "not what price-time priority makes of it")


def test_a_shard_that_does_something_else_than_the_naive_one_is_found(run: SyntheticRun) -> None:
    def charge_more(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(*e[:-1], e[-1] + 1) if e[0] == TRADED else e for e in events]

    run.write()
    found(run.check(SpoiltKind(charge_more)), "I5", "the naive shard does something else")


def test_a_crossed_book_is_found(run: SyntheticRun) -> None:
    def never_trade(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [e for e in events if e[0] != TRADED]

    run.write()
    found(run.check(SpoiltKind(never_trade)), "I5", "expected (2, ")


def test_a_trade_that_was_told_and_is_not_in_the_history_is_found(run: SyntheticRun) -> None:
    trade = pick(run.logs["t0.executions"], lambda line: line["e"] == "exec" and line["x"][0] == TRADED)
    run.logs["t0.executions"].append({**trade, "seq": run.shard.sequence, "x": [*trade["x"]]})
    run.write()
    found(run.check(), "I5", "is not in the history")


def test_an_order_accepted_in_a_stage_that_forbids_it_is_found(run: SyntheticRun) -> None:
    def keep_closed(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(*e[:3], 2, *e[4:]) if e[0] == 5 else e for e in events]

    run.write()
    found(run.check(SpoiltKind(keep_closed)), "I9", "was accepted in stage 2")


# ---------------------------------------------------------------- I6


def status_line(epoch: int, pid: int, run: SyntheticRun) -> Line:
    return {
        "name": SHARD,
        "epoch": epoch,
        "pid": pid,
        "hash": run.hash_now(),
        "hash_seq": run.shard.sequence,
    }


def test_a_hash_that_replay_does_not_give_is_found(run: SyntheticRun) -> None:
    run.status = [{**status_line(1, 100, run), "hash": "00" * 16}]
    run.write()
    found(run.check(), "I6", f"after command {run.shard.sequence} replay gives")


# ---------------------------------------------------------------- I7


def test_an_epoch_with_two_writers_is_found(run: SyntheticRun) -> None:
    run.status = [status_line(1, 100, run), status_line(1, 101, run)]
    run.write()
    found(run.check(), "I7", "epoch 1 has two writers, 100 and 101")


def test_a_flipped_bit_is_found(run: SyntheticRun) -> None:
    run.write()
    data = bytearray(run.segments[0].read_bytes())
    data[len(data) // 2] ^= 4
    run.segments[0].write_bytes(data)
    found(run.check(), "I7", "no whole record after record")


def test_a_torn_tail_that_nobody_was_told_of_is_none(run: SyntheticRun) -> None:
    run.write()
    data = run.segments[0].read_bytes()
    run.segments[0].write_bytes(data + data[44:80])
    findings = run.check()
    assert not findings.violations, str(findings)
    assert "a torn tail of 36 bytes" in str(findings)


def test_a_record_that_is_missing_is_found(run: SyntheticRun) -> None:
    run.write()
    data = run.segments[0].read_bytes()
    start = data.index(b"EKJR", len(data) // 2)
    end = data.index(b"EKJR", start + 1)
    run.segments[0].write_bytes(data[:start] + data[end:])
    found(run.check(), "I7", "expected record")


def test_records_of_another_machine_are_found(run: SyntheticRun, tmp_path: Path) -> None:
    other = SyntheticRun(tmp_path / "other")
    run.write()
    other.write()
    shutil.copy(other.segments[0], run.segments[0])
    assert not run.check().violations  # the same machine, and the same history
    data = bytearray(run.segments[0].read_bytes())
    data[8] ^= 1
    run.segments[0].write_bytes(data)
    found(run.check(), "I7", "is of another journal")


def test_an_execution_that_was_not_told_is_found(run: SyntheticRun) -> None:
    del run.logs["t0.executions"][10]
    run.write()
    found(run.check(), "I7", "the executions told are not those of the history")


def test_an_execution_that_was_told_twice_is_found(run: SyntheticRun) -> None:
    run.logs["t0.executions"].insert(10, run.logs["t0.executions"][10])
    run.write()
    findings = run.check()
    assert any("the executions told are not those" in v.summary for v in findings.violations), str(findings)


def test_executions_that_were_not_told_at_the_end_are_found(run: SyntheticRun) -> None:
    del run.logs["t1.executions"][-10:]
    run.write()
    found(run.check(), "I7", "was never told of")


def test_a_wrong_level_of_a_book_is_found(run: SyntheticRun) -> None:
    pick(run.logs[f"{MARKET}.book-0"], lambda line: line["bids"] and line["bids"][0][2], 20)["bids"][0][1] += 1
    run.write()
    found(run.check(), "I7", "side 1 differs")


def test_a_change_of_a_book_that_was_not_told_is_found(run: SyntheticRun) -> None:
    del run.logs[f"{MARKET}.book-0"][30]
    run.write()
    found(run.check(), "I7", "expected to follow on")


def test_a_wrong_checksum_of_a_book_is_found(run: SyntheticRun) -> None:
    run.logs[f"{MARKET}.book-0"][30]["crc"] ^= 1
    run.write()
    found(run.check(), "I7", "the checksum is")


# ---------------------------------------------------------------- I10


def test_an_outcome_that_came_after_more_than_ten_seconds_is_found(run: SyntheticRun) -> None:
    pick(run.logs["t0"], lambda line: line["e"] == "out")["t"] = 11 * 10**9
    run.write()
    found(run.check(), "I10", "an outcome came after 11.0 s")


# ---------------------------------------------------------------- I8


def test_a_trade_of_an_order_whose_cancel_was_acknowledged_is_found(run: SyntheticRun) -> None:
    cancel = pick(run.logs["t0"], lambda line: line["e"] == "out" and line["k"] == "cancel" and not line["rej"])
    trade = pick(run.logs["t0.executions"], lambda line: line["e"] == "exec" and line["x"][0] == TRADED)
    name, order_id = cancel["id"], cancel["oid"]
    row = [*trade["x"][:2], name, order_id, *trade["x"][4:]]
    run.logs["t0.executions"].append({**trade, "seq": run.shard.sequence, "x": row})
    run.write()
    found(run.check(), "I8", f"its cancel was acknowledged at {cancel['seq']}")


def test_a_shard_that_trades_with_a_cancelled_order_is_found(run: SyntheticRun) -> None:
    cancel = pick(run.logs["t0"], lambda line: line["e"] == "out" and line["k"] == "cancel" and not line["rej"])

    def trade_it(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [(*e[:4], cancel["oid"], *e[5:]) if e[0] == TRADED and e[1] > cancel["seq"] else e for e in events]

    run.write()
    found(run.check(SpoiltKind(trade_it)), "I8", f"order {cancel['oid']} traded at")


def test_a_cancel_that_is_refused_for_load_is_found(run: SyntheticRun) -> None:
    line = pick(run.logs["t0"], lambda line: line["e"] == "out" and line["k"] == "cancel")
    line.update(o=2, rej=601, seq=0)
    run.write()
    found(run.check(), "I8", "was refused for load")


def test_a_cancel_that_a_stage_refuses_is_no_fault(run: SyntheticRun) -> None:
    line = pick(run.logs["t0"], lambda line: line["e"] == "out" and line["k"] == "cancel")
    line.update(o=2, rej=500, seq=0)
    run.write()
    assert not run.check().found["I8"]
