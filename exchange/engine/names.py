"""Orders by name."""

from __future__ import annotations

from exchange.engine.orders import Order


class NameTable:
    """An account's orders by client order id. Hosts have one that is made for a million of them."""

    def __init__(self) -> None:
        self._by_name: dict[str, Order] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def orders(self) -> list[Order]:
        """Return all orders, as they happen to stand."""
        return list(self._by_name.values())

    def find(self, name: str) -> Order | None:
        """Return the order of this name, or None."""
        return self._by_name.get(name)

    def add(self, name: str, order: Order) -> None:
        """Enter an order; its name must not be there yet."""
        self._by_name[name] = order

    def remove(self, name: str) -> None:
        """Take a name out; KeyError if it is not there."""
        del self._by_name[name]
