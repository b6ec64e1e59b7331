"""A table of names is a dictionary ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.engine.names import NameTable
from exchange.engine.orders import Order
from exchange.runtime.hashed_names import HashedNames


class Hashed(str):
    """A name whose hash is given, to make hashes meet."""

    __slots__ = ("hashed",)
    hashed: int

    def __new__(cls, name: str, hashed: int) -> Hashed:
        self = super().__new__(cls, name)
        self.hashed = hashed
        return self

    def __hash__(self) -> int:
        return self.hashed

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)  # else the hash above would be lost


NAMES = [
    Hashed(f"{hashed:x}-{number}", hashed)
    # The same place with the same tag, with other tags, the last places of the table, and neither.
    for hashed in (0, 1, 0xF, 1 << 32, 1 << 40, (1 << 62) - 1, -2, -(1 << 40), 0x1234_5678_9ABC_DEF0)
    for number in range(5)
]


@pytest.mark.parametrize("kind", [NameTable, HashedNames])
@given(toggles=st.lists(st.integers(0, len(NAMES) - 1), max_size=300))
def test_it_holds_what_a_dictionary_holds(kind: type[NameTable], toggles: list[int]) -> None:
    table, model = kind(), dict[str, Order]()
    for name in map(NAMES.__getitem__, toggles):
        if name in model:
            table.remove(name)
            del model[name]
        else:
            order = model[name] = Order()
            table.add(name, order)
        assert len(table) == len(model)
        assert set(table.orders()) == set(model.values())
    for name in NAMES:
        assert table.find(name) is model.get(name)
        if name not in model:
            with pytest.raises(KeyError):
                table.remove(name)


def test_what_is_left_of_many_is_found_when_the_places_are_made_anew() -> None:
    table, orders = HashedNames(), {f"o{number}": Order() for number in range(1_000)}
    for name, order in orders.items():
        table.add(name, order)
    kept = dict(list(orders.items())[-5:])
    for name in orders.keys() - kept.keys():
        table.remove(name)
    for number in range(5_000):
        table.add(f"p{number}", Order())
        table.remove(f"p{number}")
        assert {name: table.find(name) for name in kept} == kept
    assert set(table.orders()) == set(kept.values())


def test_it_grows_and_forgets_the_oldest_as_the_newest_come() -> None:
    table, orders = HashedNames(), [Order() for _ in range(20_000)]
    names = [f"o{number}" for number in range(len(orders))]
    for number, order in enumerate(orders):
        table.add(names[number], order)
        if number >= 3_000:
            table.remove(names[number - 3_000])
    assert set(table.orders()) == set(orders[-3_000:])
    for number, (name, order) in enumerate(zip(names, orders, strict=True)):
        assert table.find(name) is (order if number >= 17_000 else None)
        assert number < 17_000 or table.guess(hash(name)) is order
    for name in names[17_000:]:
        table.remove(name)
    assert not table.orders()
