"""Planted bugs are found: those of the engine on histories that are made here, all of them on real runs (slow)."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.experiment import library
from chaos.experiment.model import ALL_RULES
from chaos.mutants.bugs import BUGS, CAMPAIGN, Bug
from chaos.mutants.planting import environment_with
from exchange.compiled import described
from exchange.engine import shard as engine_shard
from exchange.v1 import trading_pb2, types_pb2
from tests.chaos.invariants.synthetic import MARKET, SyntheticRun

PURE = described(engine_shard) == "pure Python"
IN_EVERY_HISTORY = ("makes-money", "charges-more", "forgets-holds", "fills-twice", "fills-after-cancel")
LOT, PRICE = 10_000, 1_000


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """Have the bug in this process for a time."""
    module = importlib.import_module(bug.module)
    owners = [module, *(kind for _, kind in inspect.getmembers(module, inspect.isclass))]
    before = [(owner, dict(vars(owner))) for owner in owners]
    bug.change(module)
    try:
        yield
    finally:
        for owner, attributes in before:
            for name, value in attributes.items():
                if vars(owner).get(name) is not value:
                    setattr(owner, name, value)


@pytest.mark.skipif(not PURE, reason="a compiled engine cannot be changed from outside")
@pytest.mark.parametrize("name", IN_EVERY_HISTORY)
def test_a_bug_of_the_engine_is_found_in_its_history(name: str, tmp_path: Path) -> None:
    with planted(BUGS[name]):
        run = SyntheticRun(tmp_path, messages=200)
        run.write()
        findings = run.check()
    broken = {rule for rule, count in findings.found.items() if count}
    assert broken & set(BUGS[name].rules), str(findings)


def placed(name: str, side: types_pb2.Side.ValueType, quantity: int = LOT) -> trading_pb2.Command:
    order = trading_pb2.PlaceOrderRequest(
        instrument=MARKET,
        client_order_id=name,
        side=side,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price=PRICE,
        quantity=quantity,
    )
    return trading_pb2.Command(place=order)


@pytest.mark.skipif(not PURE, reason="a compiled engine cannot be changed from outside")
def test_an_order_that_is_done_again_is_found(tmp_path: Path) -> None:
    with planted(BUGS["executes-duplicates"]):
        run = SyntheticRun(tmp_path, messages=0)
        for _ in range(2):
            run.send(0, [placed("again", types_pb2.SIDE_BUY)])
        run.write()
        findings = run.check()
    assert findings.found["I2"], str(findings)


@pytest.mark.skipif(not PURE, reason="a compiled engine cannot be changed from outside")
def test_an_order_that_jumps_the_queue_is_found(tmp_path: Path) -> None:
    with planted(BUGS["jumps-the-queue"]):
        run = SyntheticRun(tmp_path, messages=0)
        for number in range(6):
            run.send(0, [placed(f"maker-{number}", types_pb2.SIDE_SELL)])
        run.send(1, [placed("taker", types_pb2.SIDE_BUY, 3 * LOT)])
        run.write()
        findings = run.check()
    assert findings.found["I5"], str(findings)


def test_every_rule_has_a_bug_and_every_bug_a_scenario_that_is_shipped() -> None:
    assert {rule for bug in BUGS.values() for rule in bug.rules} == set(ALL_RULES)
    for bug in BUGS.values():
        assert bug.finder == CAMPAIGN or library.load(bug.finder).experiment.expect == "hold", bug.name


@pytest.mark.parametrize("bug", BUGS.values(), ids=lambda bug: bug.name)
def test_a_bug_changes_what_it_says_it_changes(bug: Bug) -> None:
    module = importlib.import_module(bug.module)
    with planted(bug):
        owners = [module, *(kind for _, kind in inspect.getmembers(module, inspect.isclass))]
        changed = [
            v for owner in owners for v in vars(owner).values() if getattr(v, "__module__", "") == bug.change.__module__
        ]
        assert changed
    assert not [v for v in vars(module).values() if getattr(v, "__module__", "") == bug.change.__module__]


def test_a_process_that_starts_with_a_bug_has_it_and_others_do_not() -> None:
    asks = "import exchange.engine.shard as s; print(s.match.__module__)"
    command = [sys.executable, "-c", asks]
    with_bug = subprocess.run(command, env=environment_with("fills-twice"), capture_output=True, text=True, check=True)
    assert with_bug.stdout.strip() == "chaos.mutants.bugs"


def test_the_docs_name_every_bug_its_rules_and_its_finder() -> None:
    text = (Path(__file__).parents[3] / "docs" / "mutants.md").read_text()
    for bug in BUGS.values():
        assert f"| `{bug.name}` | {', '.join(bug.rules)} | {bug.what} | `{bug.finder}` |" in text


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BUGS)
def test_a_shipped_scenario_finds_the_bug(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chaos.mutants", name, "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
