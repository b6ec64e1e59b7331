"""Sorted integers with a cheap best one: the prices of one side of a book."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

_CHUNK_MAX = 512  # tests set it, so it is not Final


class Ladder:
    """A sorted set of integers in chunks, so that adding a price costs the same in a deep book as in a shallow one.

    A plain sorted list moves half of itself for each price that is added in its middle: 20 us at 100,000 prices.
    """

    __slots__ = ("_chunks", "_firsts")

    def __init__(self) -> None:
        self._chunks: list[list[int]] = []
        self._firsts: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def __iter__(self) -> Iterator[int]:
        """Iterate from the highest down."""
        for chunk in reversed(self._chunks):
            yield from reversed(chunk)

    def highest(self) -> int:
        """Return the highest value; the ladder must not be empty."""
        return self._chunks[-1][-1]

    def add(self, value: int) -> None:
        """Add a value that is not there yet."""
        if not self._chunks:
            self._chunks.append([value])
            self._firsts.append(value)
            return
        at = (bisect_right(self._firsts, value) or 1) - 1
        chunk = self._chunks[at]
        insort(chunk, value)
        self._firsts[at] = chunk[0]
        if len(chunk) > _CHUNK_MAX:
            upper = chunk[_CHUNK_MAX // 2 :]
            del chunk[_CHUNK_MAX // 2 :]
            self._chunks.insert(at + 1, upper)
            self._firsts.insert(at + 1, upper[0])

    def remove_highest(self) -> None:
        """Remove the highest value; the ladder must not be empty."""
        chunk = self._chunks[-1]
        chunk.pop()
        if not chunk:
            del self._chunks[-1], self._firsts[-1]

    def remove(self, value: int) -> None:
        """Remove a value; KeyError if it is not there."""
        at = bisect_right(self._firsts, value) - 1
        chunk = self._chunks[at] if at >= 0 else []
        place = bisect_left(chunk, value)
        if place == len(chunk) or chunk[place] != value:
            raise KeyError(value)
        del chunk[place]
        if not chunk:
            del self._chunks[at], self._firsts[at]
        elif place == 0:
            self._firsts[at] = chunk[0]
