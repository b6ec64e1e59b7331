"""What a batch needs is fetched from memory before it is done, which changes nothing that it does."""

from __future__ import annotations

import pytest

from exchange.cli.bench.flow import INSTRUMENT, OrderFlow, open_shard
from exchange.engine import remembered
from exchange.engine.commands import AmendOrder, CancelOrder, Command, PlaceOrder
from exchange.engine.names import IS_COMPILED
from exchange.engine.state import state_of

FIRST_ID = 3
"""To open a shard takes two commands."""


def change(cancel: CancelOrder, ids: dict[str, int]) -> Command:
    account, symbol, name, _ = cancel
    order_id = ids[name]
    if order_id % 3 == 0:
        return CancelOrder(account, symbol, "", order_id)
    return AmendOrder(account, symbol, name, 0, 0, 1) if order_id % 3 == 1 else cancel


def orders_and_changes() -> list[Command]:
    """Return a flow of which a third of the cancels name ids and a third are amends, and some that name no order."""
    flow = OrderFlow(7, cancels_resting=True)
    commands = flow.resting(500, prices_per_side=50) + flow.commands(3_000)
    ids: dict[str, int] = {}
    changed: list[Command] = []
    for order_id, command in enumerate(commands, FIRST_ID):
        if isinstance(command, PlaceOrder):
            ids[command.client_order_id] = order_id
        changed.append(change(command, ids) if isinstance(command, CancelOrder) else command)
    symbol = INSTRUMENT.symbol
    nobodys = [CancelOrder(1, symbol, "never"), CancelOrder(1, symbol, "", 10**12), CancelOrder(10**6, symbol, "o1")]
    return [*changed, *nobodys, *nobodys, *nobodys]


def test_a_batch_does_what_its_commands_do_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_FETCH_CHUNKS_MIN", 0)
    commands = orders_and_changes()
    single, batched = open_shard(), open_shard()
    expected = [result for command in commands for result in single.apply(2, [command]).results]
    results = [r for at in range(0, len(commands), 100) for r in batched.apply(2, commands[at : at + 100]).results]
    assert results == expected
    assert {result.status for result in results} == {1, 2, 3, 4}
    assert state_of(batched) == state_of(single)
    batched.validate()
    assert (batched.remembered.fetch(commands) != 0) == IS_COMPILED
