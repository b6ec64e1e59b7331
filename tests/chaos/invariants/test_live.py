"""What can be seen while a run goes on is found as the lines come, with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.invariants.live import LiveChecks, LogTail
from chaos.load.client_log import Line
from tests.chaos.invariants.synthetic import MARKET, SHARD, SyntheticRun

S = 10**9


@pytest.fixture
def run(tmp_path: Path) -> SyntheticRun:
    return SyntheticRun(tmp_path)


def live(run: SyntheticRun) -> LiveChecks:
    run.write()
    checks = LiveChecks({MARKET: SHARD})
    LogTail(run.directory / "logs").take(checks.lines)
    return checks


def pick(lines: list[Line], wanted: Callable[[Line], object]) -> Line:
    return next(line for line in lines if wanted(line))


def is_taken(line: Line) -> object:
    return line["e"] == "out" and line["k"] == "place" and line["oid"]


def is_cancelled(line: Line) -> object:
    return line["e"] == "out" and line["k"] == "cancel" and not line["rej"]


def test_a_true_run_breaks_nothing(run: SyntheticRun) -> None:
    checks = live(run)
    assert not checks.findings
    assert {"I2", "I5", "I8", "I9", "I10"} <= checks.looked_at.keys()


def test_an_order_that_took_effect_twice_is_found(run: SyntheticRun) -> None:
    line = pick(run.logs["t0"], is_taken)
    run.logs["t0"].append({**line, "oid": line["oid"] + 1, "m": 10_000})
    (found,) = live(run).findings
    assert found.rule == "I2"
    assert found.evidence == f"t0.log:{len(run.logs['t0'])}"


def test_a_fill_after_an_acknowledged_cancel_is_found(run: SyntheticRun) -> None:
    cancel = pick(run.logs["t0"], is_cancelled)
    trade = pick(run.logs["t0.executions"], lambda line: line["e"] == "exec" and line["x"][0] == 2)
    row = [*trade["x"][:3], cancel["oid"], *trade["x"][4:]]
    run.logs["t0.executions"].append({**trade, "seq": cancel["seq"] + 1, "x": row})
    assert [found.rule for found in live(run).findings] == ["I8"]


def test_a_cancel_that_came_too_late_and_found_a_filled_order_is_no_fault(run: SyntheticRun) -> None:
    pick(run.logs["t0"], is_cancelled).update(st=2, seq=0, dup=True)
    assert not live(run).findings


@pytest.mark.parametrize("refused", [{"rej": 601}, {"why": "Overloaded('QUEUE_FULL: shard-0 has more to do')"}])
def test_a_cancel_that_was_shed_is_found(run: SyntheticRun, refused: Line) -> None:
    pick(run.logs["t0"], is_cancelled).update(o=2, **refused)
    assert [found.rule for found in live(run).findings] == ["I8"]


def test_an_order_that_a_closed_stage_let_through_is_found(run: SyntheticRun) -> None:
    for line in run.logs["t0"]:
        line["t"] = 5 * S
    run.write()
    checks = LiveChecks({MARKET: SHARD})
    checks.status(SHARD, "CANCEL_ONLY", 3.0)
    LogTail(run.directory / "logs").take(checks.lines)
    checks.status(SHARD, "CANCEL_ONLY", 6.5)
    checks.look(7.5)
    assert checks.findings[0].rule == "I9"
    assert checks.findings[0].t_s == 5.0


@pytest.mark.parametrize(("begin_s", "stage_after"), [(4.5, "CANCEL_ONLY"), (3.0, "OPEN")])
def test_an_order_that_came_as_the_stage_changed_is_no_fault(
    run: SyntheticRun, begin_s: float, stage_after: str
) -> None:
    for line in (*run.logs["t0"], *run.logs["t1"]):
        line["t"] = 5 * S
    run.write()
    checks = LiveChecks({MARKET: SHARD})
    checks.status(SHARD, "CANCEL_ONLY", begin_s)
    LogTail(run.directory / "logs").take(checks.lines)
    checks.status(SHARD, stage_after, 5.2)
    checks.status(SHARD, stage_after, 6.5)
    checks.look(7.5)
    assert not checks.findings


def test_an_outcome_that_never_comes_is_found(run: SyntheticRun) -> None:
    run.logs["t0"].append({**pick(run.logs["t0"], lambda line: line["e"] == "send"), "m": 10_000, "t": 2 * S})
    checks = live(run)
    checks.look(11.0)
    assert not checks.findings
    checks.look(12.5)
    assert [found.summary for found in checks.findings] == ["no outcome after 10.5 s"]


def test_a_crossed_book_is_found_once(run: SyntheticRun) -> None:
    for seq in (10_000, 10_001):
        run.logs[f"{MARKET}.book-0"].append(
            {"e": "book", "sym": MARKET, "snap": True, "seq": seq, "bids": [[11, 1, 1]], "asks": [[10, 1, 1]]}
        )
    assert [found.rule for found in live(run).findings] == ["I5"]


def test_memory_beyond_its_limit_is_found() -> None:
    checks = LiveChecks({}, memory_mb_max=100.0)
    checks.memory(99.0, 1.0)
    checks.memory(101.0, 2.0)
    assert [(found.rule, found.t_s) for found in checks.findings] == [("I13", 2.0)]


def test_a_line_that_is_not_whole_yet_waits(tmp_path: Path) -> None:
    log, seen = tmp_path / "t0.log", list[str]()
    tail = LogTail(tmp_path)
    log.write_text('{"e":"a"}\n{"e":')
    tail.take(lambda _, lines: seen.extend(where for _, where in lines))
    assert seen == ["t0.log:1"]
    with log.open("a") as file:
        file.write('"b"}\n')
    tail.take(lambda _, lines: seen.extend(where for _, where in lines))
    assert seen == ["t0.log:1", "t0.log:2"]
