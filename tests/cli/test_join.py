"""Putting a replay together from the streams of an exchange, fed here by a script or by a shard."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from exchange.cli.replay.engine import open_shard, replay_engine
from exchange.cli.replay.join import Join, checksum
from exchange.cli.replay.outcome import Best, TradeRow
from exchange.cli.replay.recording import Kind, Recording, ReplayCommand
from exchange.cli.replay.translate import Translator, encode
from exchange.engine.events import Event, OrderAccepted, OrderAmended, OrderClosed, OrderTraded, event_of
from exchange.engine.instrument import Instrument
from exchange.v1 import market_data_pb2, trading_pb2

BUY, SELL = 1, 2
SYMBOL = "REPLAY-1"
END = 1_000_000
"""A sequence after all others."""
NEW, TRADE = trading_pb2.EXECUTION_TYPE_NEW, trading_pb2.EXECUTION_TYPE_TRADE
CLOSED = trading_pb2.EXECUTION_TYPE_CLOSED
MAKER, TAKER = trading_pb2.LIQUIDITY_MAKER, trading_pb2.LIQUIDITY_TAKER
Execution = trading_pb2.Execution


def leg(
    sequence: int,
    order: str,
    liquidity: trading_pb2.Liquidity.ValueType,
    trade_id: int = 1,
    price: int = 100,
    quantity: int = 5,
) -> Execution:
    """One account's part in a trade."""
    return Execution(
        instrument=SYMBOL,
        sequence=sequence,
        type=TRADE,
        client_order_id=order,
        liquidity=liquidity,
        trade_id=trade_id,
        trade_price=price,
        trade_quantity=quantity,
    )


def update(
    sequence: int, previous: int, best: Best, *, checked: int | None = None, snapshot: bool = False
) -> market_data_pb2.OrderBookUpdate:
    """A change of depth 1: a quantity of 0 takes a level away, a price of 0 says nothing of that side."""
    bid, bid_quantity, ask, ask_quantity = best
    level = market_data_pb2.PriceLevel
    return market_data_pb2.OrderBookUpdate(
        instrument=SYMBOL,
        sequence=sequence,
        previous_sequence=previous,
        bids=[level(price=bid, quantity=bid_quantity)] if bid else [],
        asks=[level(price=ask, quantity=ask_quantity)] if ask else [],
        checksum=checksum(best) if checked is None else checked,
        snapshot=snapshot,
    )


def opened() -> Join:
    join = Join(SYMBOL)
    join.add_book([update(10, 10, (0, 0, 0, 0), snapshot=True)])
    return join


# ---------------------------------------------------------------- by a script


@pytest.mark.parametrize("maker_first", [True, False])
def test_a_trade_is_joined_from_its_two_legs_whichever_comes_first(maker_first: bool) -> None:
    join = opened()
    legs = [(BUY, leg(12, "m", MAKER)), (SELL, leg(12, "t", TAKER))]
    for side, execution in legs if maker_first else reversed(legs):
        join.add_executions(side, [execution])
    assert join.trades() == [TradeRow(12, "t", "m", 100, 5)]


def test_a_trade_is_not_complete_before_both_legs_are_here() -> None:
    join = opened()
    join.add_executions(SELL, [leg(12, "t", TAKER)])
    assert not join.is_complete({SELL: 12}, 1)
    assert join.trades() == []
    join.add_executions(BUY, [leg(12, "m", MAKER)])
    assert join.is_complete({SELL: 12}, 1)
    assert not join.is_complete({SELL: 12, BUY: 13}, 1)


def test_what_happens_in_other_instruments_is_passed_over() -> None:
    join = opened()
    join.add_executions(BUY, [Execution(instrument="OTHER", sequence=99, type=NEW)])
    assert not join.has_reached(11)
    assert not join.is_complete({BUY: 11}, 0)


def test_a_cancel_says_what_it_took_away() -> None:
    join = opened()
    join.add_executions(BUY, [Execution(instrument=SYMBOL, sequence=12, type=CLOSED, quantity=9, filled_quantity=2)])
    assert join.cancelled == {12: 7}


def test_the_best_prices_stand_until_a_change_of_their_side() -> None:
    join = opened()
    join.add_book([update(11, 10, (99, 5, 0, 0)), update(13, 11, (0, 0, 101, 2), checked=checksum((99, 5, 101, 2)))])
    join.add_book([update(14, 13, (99, 0, 0, 0), checked=checksum((0, 0, 101, 2)))])
    assert join.best == [(10, (0, 0, 0, 0)), (11, (99, 5, 0, 0)), (13, (99, 5, 101, 2)), (14, (0, 0, 101, 2))]
    assert join.fault == ""


@pytest.mark.parametrize("levels", [[(99, 0), (98, 4)], [(98, 4), (99, 0)]])
def test_a_level_that_comes_in_sight_replaces_the_one_that_is_gone(levels: list[tuple[int, int]]) -> None:
    join = opened()
    join.add_book([update(11, 10, (99, 5, 0, 0))])
    change = update(12, 11, (0, 0, 0, 0), checked=checksum((98, 4, 0, 0)))
    change.bids.extend(market_data_pb2.PriceLevel(price=p, quantity=q) for p, q in levels)
    join.add_book([change])
    assert join.best[-1] == (12, (98, 4, 0, 0))
    assert join.fault == ""


def test_a_snapshot_says_all_there_is() -> None:
    join = opened()
    join.add_book([update(11, 10, (99, 5, 101, 2)), update(20, 20, (99, 5, 0, 0), snapshot=True)])
    assert join.best[-1] == (20, (99, 5, 0, 0))
    assert join.fault == ""


def test_the_streams_have_reached_a_command_when_the_book_has_shown_the_trades_before_it() -> None:
    join = opened()
    join.add_executions(SELL, [leg(12, "t", TAKER), Execution(instrument=SYMBOL, sequence=15, type=NEW)])
    assert join.has_reached(11)
    assert not join.has_reached(12)
    assert not join.has_reached(15)
    join.add_book([update(12, 10, (99, 5, 0, 0))])
    assert join.has_reached(15)
    assert not join.has_reached(16)


# ---------------------------------------------------------------- what must not pass unnoticed


def resting(sequence: int, order: str, price: int, quantity: int) -> Execution:
    """An order of the buyer comes to rest."""
    values = {"client_order_id": order, "price": price, "quantity": quantity, "open_quantity": quantity}
    return Execution(instrument=SYMBOL, sequence=sequence, type=NEW, **values)  # type: ignore[arg-type]  # by name


def test_a_gap_in_the_book_stream_is_a_fault() -> None:
    join = opened()
    join.add_book([update(20, 15, (99, 5, 0, 0))])
    assert join.check(END) == "order book: expected a change after 10, was 15"


def test_a_wrong_checksum_is_a_fault() -> None:
    join = opened()
    join.add_book([update(11, 10, (99, 5, 0, 0), checked=1)])
    assert join.check(END) == "order book: checksum differs at 11"


def test_changes_merged_into_one_are_a_fault_though_nothing_in_the_stream_says_so() -> None:
    join = opened()
    join.add_executions(BUY, [resting(11, "a", 98, 5), resting(12, "b", 99, 5)])
    join.add_book([update(12, 10, (99, 5, 0, 0))])
    assert join.check(END) == ("order book: the change at 11 was merged into a later one: this reader was too slow")


def test_changes_merged_into_the_mark_of_the_end_are_a_fault() -> None:
    join = opened()
    join.add_executions(BUY, [resting(11, "a", 98, 5)])
    join.add_book([update(END, 10, (98, 6, 0, 0))])
    assert "the change at 11 was merged into a later one" in join.check(END)


def test_a_change_that_no_order_made_is_a_fault() -> None:
    join = opened()
    join.add_executions(BUY, [resting(11, "a", 98, 5)])
    join.add_book([update(11, 10, (98, 5, 0, 0)), update(12, 11, (98, 7, 0, 0))])
    assert join.check(END) == "order book: expected no more changes, was (12, (98, 7, 0, 0))"


def test_the_mark_of_the_end_is_no_part_of_what_is_checked() -> None:
    join = opened()
    join.add_executions(BUY, [resting(11, "a", 98, 5), resting(END, "end", 98, 1)])
    join.add_book([update(11, 10, (98, 5, 0, 0)), update(END, 11, (98, 6, 0, 0)), update(END + 1, END, (98, 5, 0, 0))])
    assert join.check(END) == ""


def test_a_fault_does_not_keep_the_replay_waiting_for_the_book() -> None:
    join = opened()
    join.add_executions(SELL, [leg(12, "t", TAKER)])
    join.add_book([update(11, 9, (99, 5, 0, 0))])
    assert join.has_reached(12)
    assert join.check(END)


@pytest.mark.parametrize(
    ("executions", "said"),
    [
        ([(BUY, leg(11, "m", MAKER))], "trade 1 was reported to only one of its two orders"),
        ([(BUY, leg(11, "m", MAKER)), (BUY, leg(11, "m", MAKER))], "trade 1 was reported twice to order m"),
        ([(BUY, leg(11, "m", MAKER, trade_id=2)), (SELL, leg(11, "t", TAKER, trade_id=2))], "trade 1 is missing"),
        ([(BUY, leg(11, "m", MAKER)), (SELL, leg(11, "t", TAKER, quantity=4))], "trade 1 differs"),
        ([(BUY, leg(11, "m", MAKER)), (SELL, leg(12, "t", TAKER))], "trade 1 differs"),
    ],
)
def test_trades_that_do_not_add_up_are_a_fault(executions: list[tuple[int, Execution]], said: str) -> None:
    join = opened()
    for side, execution in executions:
        join.add_executions(side, [execution])
    assert said in join.check(END)


# ---------------------------------------------------------------- by a shard


def random_recording(chance: random.Random, commands: int) -> Recording:
    entered = []
    for number in range(1, commands + 1):
        order, side, price, quantity = str(number), chance.choice((BUY, SELL)), chance.randint(95, 105), number % 9 + 1
        kind = chance.choices(list(Kind), weights=(6, 1, 2, 2, 1))[0]
        if kind not in (Kind.NEW, Kind.MARKET):
            order, side = str(chance.randint(1, number)) if number % 7 else f"unknown{number}", 0
        entered.append(ReplayCommand(number, 0, kind, order, side, price, quantity, chance.choice((1, 1, 1, 2, 3))))
    return Recording([c._replace(time_in_force=0) if c.kind == Kind.MARKET else c for c in entered], 0, 0)


class Gateway:
    """What an exchange sends of a recording: executions by side, and changes of the best prices."""

    def __init__(self, recording: Recording) -> None:
        self.executions: dict[int, list[Execution]] = {BUY: [], SELL: []}
        self.changes: list[tuple[int, Best]] = []
        self.shard = open_shard(Instrument(SYMBOL, "REPLAY", "FLOW", 0, 0, 0))
        self.changes.append((self.shard.sequence, (0, 0, 0, 0)))
        self._orders: dict[int, list[Any]] = {}  # id: account, name, price, open
        translate = Translator(SYMBOL)
        for command in recording.commands:
            for row in self.shard.apply(1, [translate(command)]).events:
                self._report(event_of(row))
            book = self.shard.books[SYMBOL]
            bid, ask = book.bids.best, book.asks.best
            best = (
                *((bid.price, bid.quantity) if bid else (0, 0)),
                *((ask.price, ask.quantity) if ask else (0, 0)),
            )
            if best != self.changes[-1][1]:
                self.changes.append((self.shard.sequence, best))

    def _report(self, event: Event) -> None:
        if isinstance(event, OrderTraded):
            for order_id, liquidity in ((event.taker_order_id, TAKER), (event.maker_order_id, MAKER)):
                account, name, price, open_quantity = self._orders[order_id]
                self._orders[order_id][3] = open_quantity = open_quantity - event.quantity
                part = leg(event.sequence, name, liquidity, event.trade_id, event.price, event.quantity)
                part.price, part.open_quantity = price, open_quantity
                self.executions[account].append(part)
            return
        assert isinstance(event, OrderAccepted | OrderClosed | OrderAmended)
        kind, open_quantity = NEW, event.quantity
        if isinstance(event, OrderAccepted):
            self._orders[event.order_id] = [event.account, event.client_order_id, event.price, event.quantity]
        elif isinstance(event, OrderAmended):
            open_quantity = event.open_quantity
            self._orders[event.order_id][2:] = event.price, open_quantity
        else:
            kind, open_quantity = CLOSED, 0
        account, name, price, _ = self._orders[event.order_id]
        self.executions[account].append(
            Execution(
                instrument=SYMBOL,
                sequence=event.sequence,
                type=kind,
                client_order_id=name,
                price=price,
                quantity=event.quantity,
                open_quantity=open_quantity,
            )
        )

    def updates(self, *, merged: int = 0) -> list[market_data_pb2.OrderBookUpdate]:
        """Return the book stream; with `merged`, that change and the one after it come as one."""
        shown = [change for index, change in enumerate(self.changes) if not merged or index != merged]
        sent = [update(*shown[0][:1], shown[0][0], shown[0][1], snapshot=True)]
        for (previous, before), (sequence, best) in pairwise(shown):
            change = update(sequence, previous, (0, 0, 0, 0), checked=checksum(best))
            for side, old, new in ((change.bids, before[:2], best[:2]), (change.asks, before[2:], best[2:])):
                if old[0] != new[0] and old[1]:
                    side.add(price=old[0], quantity=0)
                if old != new and new[1]:
                    side.add(price=new[0], quantity=new[1])
            sent.append(change)
        return sent


@pytest.mark.parametrize("seed", range(20))
def test_however_the_streams_are_interleaved_the_join_is_what_the_engine_gives(seed: int) -> None:
    chance = random.Random(seed)
    recording = random_recording(chance, 400)
    outcome = replay_engine(recording, lambda _: None, lambda _: None, SYMBOL)
    gateway = Gateway(recording)
    buyer, seller, updates = list(gateway.executions[BUY]), list(gateway.executions[SELL]), gateway.updates()
    join = Join(SYMBOL)
    while buyer or seller or updates:
        count = chance.randint(1, 30)
        match chance.randrange(3):
            case 0:
                join.add_executions(BUY, buyer[:count])
                del buyer[:count]
            case 1:
                join.add_executions(SELL, seller[:count])
                del seller[:count]
            case _:
                join.add_book(updates[:count])
                del updates[:count]
    assert join.check(END) == ""
    assert len(outcome.trades) > 30
    assert join.is_complete({}, len(outcome.trades))
    assert join.trades() == outcome.trades
    assert join.best[1:] == [change for change in outcome.best if change[0] > join.best[0][0]][-len(join.best) + 1 :]
    cancels = {a.sequence for c, a in zip(recording.commands, outcome.answers, strict=True) if c.kind == Kind.CANCEL}
    assert {s: q for s, q in join.cancelled.items() if s in cancels} == {
        s: q for s, q in outcome.cancelled.items() if s in cancels
    }


@pytest.mark.parametrize("seed", range(5))
def test_no_two_changes_can_be_merged_unnoticed(seed: int) -> None:
    gateway = Gateway(random_recording(random.Random(seed), 300))
    assert len(gateway.changes) > 30
    for index in range(1, len(gateway.changes)):
        join = Join(SYMBOL)
        for side in (BUY, SELL):
            join.add_executions(side, gateway.executions[side])
        join.add_book(gateway.updates(merged=index))
        assert "was merged into a later one" in join.check(END), gateway.changes[index]


# ---------------------------------------------------------------- what is sent


def test_commands_are_sent_on_behalf_of_the_account_of_their_side() -> None:
    translate = Translator(SYMBOL)
    commands = [
        ReplayCommand(1, 0, Kind.NEW, "a", SELL, 100, 5, 2),
        ReplayCommand(2, 0, Kind.MARKET, "b", BUY, 0, 7, 0),
        ReplayCommand(3, 0, Kind.REPLACE, "a", 0, 101, 4, 0),
        ReplayCommand(4, 0, Kind.REDUCE, "a", BUY, 0, 2, 0),
        ReplayCommand(5, 0, Kind.CANCEL, "a", 0, 0, 0, 0),
    ]
    new, market, replace, reduce, cancel = (encode(translate(c), {BUY: 70, SELL: 80}) for c in commands)
    assert [c.on_behalf_of for c in (new, market, replace, reduce, cancel)] == [80, 70, 80, 80, 80]
    assert (new.place.client_order_id, new.place.price, new.place.quantity, new.place.time_in_force) == ("a", 100, 5, 2)
    assert (market.place.type, market.place.side, market.place.quantity) == (2, BUY, 7)
    assert (replace.amend.price, replace.amend.open_quantity, replace.amend.requeue) == (101, 4, True)
    assert (reduce.amend.quantity, reduce.amend.price, reduce.amend.cancel_on_fail) == (3, 0, True)
    assert cancel.cancel.client_order_id == "a"
    assert cancel.cancel.instrument == SYMBOL
