"""Orders by name, where there may be a million of them.

NOTE: Python's own tables keep hashes elsewhere than the places where they look, so that to find out that they do not
have a name they fetch the hashes of others from memory, one after the other. With a million orders that was a quarter
of what a command took. `HashedNames` finds out in one place, and says beforehand which one that is.
"""

from __future__ import annotations

from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i32, i64

from exchange.engine.names import NameTable
from exchange.engine.orders import Order

_PLACES_MIN: Final[i64] = 16
_FREE: Final[i32] = -1
_LEFT: Final[i32] = -2
_TAG_SHIFT: Final[i64] = 32
_TAG_BITS: Final[i64] = 0x7FFF_FFFF
_GONE: Final = Order()


class HashedNames(NameTable):
    """Orders by name; open addressing, with linear probing.

    A hash leads to one of `_places`, and from there on to the next ones up to the first that is free, as a third of
    them are. One that is taken holds the number of an entry in as many low bits as it takes to count the places, and
    above them bits of the entry's hash, its tag. The numbers of entries that were removed are used again.
    """

    __slots__ = ("_count", "_hashes", "_names", "_orders", "_places", "_unused", "_used")

    _count: i64
    _used: i64
    _unused: i64
    _places: vec[i32]
    _hashes: vec[i64]

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._places = vec[i32]([_FREE] * _PLACES_MIN)
        self._used = 0
        """How many places are not free."""
        self._hashes = vec[i64]()
        self._names: list[str] = []
        self._orders: list[Order] = []
        self._unused = -1
        """The entry that was removed last, -1 if none was; instead of its hash there stands the one before it."""

    def __len__(self) -> int:
        return int(self._count)

    def orders(self) -> list[Order]:
        return [order for order in self._orders if order is not _GONE]

    def find(self, name: str) -> Order | None:
        place = self._place_of(name, hash(name))
        return self._orders[self._entry_at(place)] if place >= 0 else None

    def add(self, name: str, order: Order) -> None:
        hashed: i64 = hash(name)
        if self._used * 3 >= len(self._places) * 2:
            self._rebuild()
        entry = self._unused
        if entry < 0:
            entry = len(self._names)
            self._hashes = append(self._hashes, hashed)
            self._names.append(name)
            self._orders.append(order)
        else:
            self._unused = self._hashes[entry]
            self._hashes[entry], self._names[entry], self._orders[entry] = hashed, name, order
        self._take_place(hashed, entry)
        self._count += 1

    def remove(self, name: str) -> None:
        place = self._place_of(name, hash(name))
        if place < 0:
            raise KeyError(name)
        entry = self._entry_at(place)
        self._places[place] = _LEFT
        self._hashes[entry], self._names[entry], self._orders[entry] = self._unused, "", _GONE
        self._unused = entry
        self._count -= 1

    def touch(self, hashed: i64) -> i64:
        """Read where a look-up will begin, so that it has come from memory by then."""
        return i64(self._places[hashed & (len(self._places) - 1)])

    def guess(self, hashed: i64) -> Order | None:
        """Return the order that a look-up will most likely find, or None; its name is fetched, too."""
        place = self._tagged(hashed, hashed)
        if place < 0:
            return None
        entry = self._entry_at(place)
        _name = self._names[entry]
        return self._orders[entry]

    def _entry_at(self, place: i64) -> i64:
        return i64(self._places[place]) & (len(self._places) - 1)

    def _place_of(self, name: str, hashed: i64) -> i64:
        """Return the place of a name, -1 if it has none."""
        place = self._tagged(hashed, hashed)
        while place >= 0 and self._names[self._entry_at(place)] != name:
            place = self._tagged(hashed, place + 1)
        return place

    def _tagged(self, hashed: i64, start: i64) -> i64:
        """Return the next place from `start` on that has the tag of a hash, -1 if a free one comes first."""
        places = self._places
        mask = len(places) - 1
        tag_bits = _TAG_BITS & ~mask
        tag = (hashed >> _TAG_SHIFT) & tag_bits
        place = start & mask
        while True:
            taken = places[place]
            if taken >= 0:
                if i64(taken) & tag_bits == tag:
                    return place
            elif taken == _FREE:
                return -1
            place = (place + 1) & mask

    def _take_place(self, hashed: i64, entry: i64) -> None:
        places = self._places
        mask = len(places) - 1
        place = hashed & mask
        while places[place] >= 0:
            place = (place + 1) & mask
        if places[place] == _FREE:
            self._used += 1
        places[place] = i32((hashed >> _TAG_SHIFT) & _TAG_BITS & ~mask | entry)

    def _rebuild(self) -> None:
        """Make places for at least as many names again, none of them left, and enough to number the entries."""
        before = self._places
        mask = len(before) - 1
        places = _PLACES_MIN
        while places < 3 * self._count or places < len(self._names):
            places *= 2
        self._places = vec[i32]([_FREE] * places)
        self._used = 0
        for taken in before:
            if taken >= 0:
                entry = i64(taken) & mask
                self._take_place(self._hashes[entry], entry)
