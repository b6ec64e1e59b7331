"""An order book on a terminal, once or as it changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest

from rich.live import Live
from rich.table import Table

from exchange.cli.output import console
from exchange.client import Client, Level, OrderBook

_STREAM_DEPTHS = (1, 5, 50)


def show_book(book: OrderBook, depth: int, as_json: bool) -> None:
    """Print a book down to a depth (0: all), as a table or a line of JSON."""
    if as_json:
        print(json.dumps(_plain(book, depth)), flush=True)
    else:
        console.print(_table(book, depth))


def follow_book(client: Client, symbol: str, depth: int, as_json: bool) -> None:
    """Show a book and each of its changes until interrupted: in place on a terminal, else one after another."""
    stream_depth = next((d for d in _STREAM_DEPTHS if 0 < depth <= d), 0)
    with client.stream_order_book(symbol, stream_depth) as books:
        if as_json or not console.is_terminal:
            for book in books:
                show_book(book, depth, as_json)
            return
        with Live(console=console, refresh_per_second=10) as live:
            for book in books:
                live.update(_table(book, depth))


def _plain(book: OrderBook, depth: int) -> dict[str, object]:
    count = depth or None
    sides = {"bids": list(book.bids)[:count], "asks": list(book.asks)[:count]}
    levels = {side: [[format(x.price, "f"), format(x.quantity, "f")] for x in rows] for side, rows in sides.items()}
    return {"instrument": book.instrument.symbol, "sequence": book.sequence, **levels}


def _table(book: OrderBook, depth: int) -> Table:
    table = Table(title=f"{book.instrument.symbol} at {book.sequence}", title_justify="left")
    for column in ("bid quantity", "bid", "ask", "ask quantity"):
        table.add_column(column, justify="right")
    count = depth or None
    bids, asks = _cells(list(book.bids)[:count]), _cells(list(book.asks)[:count])
    for bid, ask in zip_longest(bids, asks, fillvalue=("", "")):
        table.add_row(*reversed(bid), *ask)
    return table


def _cells(levels: Sequence[Level]) -> list[tuple[str, str]]:
    return [(format(level.price, "f"), format(level.quantity, "f")) for level in levels]
