"""What a batch needs is fetched from memory before it is done, which changes nothing that it does."""

from __future__ import annotations

import pytest

from exchange.cli.bench.flow import INSTRUMENT, OrderFlow, open_market
from exchange.engine.commands import AmendOrder, CancelOrder, Command, PlaceOrder
from exchange.engine.shard import Shard
from exchange.engine.state import restore, state_of
from exchange.runtime import hosted_shard
from exchange.runtime.hosted_shard import HostedShard

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
    monkeypatch.setattr(hosted_shard, "_CHUNKS_MIN", 0)
    commands = orders_and_changes()
    plain, hosted = Shard(), HostedShard()
    for shard in (plain, hosted):
        open_market(shard)
    expected = [result for command in commands for result in plain.apply(2, [command]).results]
    results = [r for at in range(0, len(commands), 100) for r in hosted.apply(2, commands[at : at + 100]).results]
    assert results == expected
    assert {result.status for result in results} == {1, 2, 3, 4}
    assert state_of(hosted) == state_of(plain)
    hosted.validate()
    assert hosted.fetch(commands)
    again = restore(state_of(hosted), HostedShard)
    again.validate()
    assert state_of(again) == state_of(plain)
