"""Money is neither made nor lost between a ledger and its shards, whatever happens to them and to their messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.money_machine import MoneyMachine, counted
from tests.engine.planted import REAL, Fault, planted

FAULTS = {
    "a maker is not paid what it bought": Fault("matching", "owner.base.available += quantity * base_unit", "pass"),
    "a shard credits a grant once more": Fault("parking", "    del funds.outbox[n]\n", ""),
    "the ledger grants once more": Fault(
        "grants", "if known is not None:", "if known is not None and known.status != 1:"
    ),
    "a shard answers a recall once more": Fault("parking", "if m in funds.recalls:", "if m < funds.recalls.low:"),
    "the ledger takes a return in once more": Fault(
        "grants", "if n in channel.answers or n < channel.seen.low:", "if n < channel.seen.low:"
    ),
}


def run(machine: type[MoneyMachine], examples: int, *, shrink: bool = True) -> None:
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)
def test_all_money_stays_and_holds_are_what_orders_need_whatever_happens() -> None:
    run(MoneyMachine, 120)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_all_money_stays_over_many_examples() -> None:
    counted.clear()
    run(MoneyMachine, 2_200)
    print(dict(counted))  # noqa: T201  # the figures of the run
    assert counted["examples"] >= 2_000
    assert counted["steps"] >= 50 * counted["examples"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    with planted(tmp_path, f"planted_{list(FAULTS).index(name)}", [FAULTS[name]]) as engine:
        faulty = type("Faulty", (MoneyMachine,), {"engine": engine})
        with pytest.raises(AssertionError):
            run(faulty, 400, shrink=False)
    assert MoneyMachine.engine is REAL


def test_a_copy_of_the_engine_without_a_fault_passes(tmp_path: Path) -> None:
    with planted(tmp_path, "planted_none", []) as engine:
        run(type("Same", (MoneyMachine,), {"engine": engine}), 5, shrink=False)
