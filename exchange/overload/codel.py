"""Whether a queue stands: CoDel (Nichols and Jacobson), as folly applies it to requests.

A burst makes a queue that is gone soon, and its shortest delay in any interval is short. A queue that stands has no
such moment, and keeping it serves nobody: everyone waits, and no more gets done. One for each class: the shortest delay
over all classes is that of the cancels, which never wait, and would say nothing.
"""

from __future__ import annotations


class Codel:
    """Told each delay as work is taken from the queue, says whether to shed it."""

    __slots__ = ("_interval_end_s", "_interval_s", "_least_s", "_target_s", "is_overloaded")

    def __init__(self, target_s: float, interval_s: float) -> None:
        self._target_s = target_s
        self._interval_s = interval_s
        self._interval_end_s = -1.0
        self._least_s = 0.0
        self.is_overloaded = False

    def sheds(self, delay_s: float, now_s: float) -> bool:
        """Whether what waited so long is to be shed: more than twice the target, while the queue stands."""
        if now_s < self._interval_end_s:
            self._least_s = min(self._least_s, delay_s)
        else:
            # After an interval without anything there is nothing to go by.
            is_next = self._interval_end_s >= 0 and now_s < self._interval_end_s + self._interval_s
            self.is_overloaded = is_next and self._least_s > self._target_s
            self._interval_end_s = now_s + self._interval_s
            self._least_s = delay_s
        return self.is_overloaded and delay_s > 2 * self._target_s

    def note_empty(self) -> None:
        """All that waited was taken at once: however long it took, no queue stands."""
        self._least_s = 0.0
        self.is_overloaded = False
