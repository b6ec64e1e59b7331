"""How long a batch was on its way, from the clocks of both ends, which need not agree.

A deadline travels as time that remains, and that does not count the way: a batch that lay in the sockets of a host that
was paused (SIGSTOP, a frozen virtual machine) or cut off would be taken as if it had just been sent. So the link says
what its monotonic clock showed when it sent. The difference from the host's clock is the unknown offset of the two
plus the way; the least one of late is that of a prompt batch, and what a batch has above it, it has spent on its way.

Wall clocks are not used: they differ by more than a deadline where nobody keeps them, and are set while the exchange
runs. Monotonic clocks drift by less than a millisecond in `WINDOW_S`. One that jumps, as when the gateway's machine is
frozen, makes batches seem late for two windows at most; a link that had no batch before tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 1.0


@dataclass(slots=True)
class _Offsets:
    """The least differences of the clocks in this window and in the one before."""

    incarnation: int
    since_s: float
    least_s: float
    least_before_s: float


class Transit:
    """What a host knows of the links to it."""

    def __init__(self) -> None:
        self._links: dict[str, _Offsets] = {}

    def waited_s(self, link: str, incarnation: int, sent_s: float, now_s: float) -> float:
        """Note a batch that arrives now; return how long it was on its way beyond the least of late.

        `sent_s` is of the link's clock, `now_s` of ours.
        """
        offset_s = now_s - sent_s
        known = self._links.get(link)
        if known is None or known.incarnation != incarnation:
            # Another process, maybe on another machine: another clock.
            self._links[link] = _Offsets(incarnation, now_s, offset_s, offset_s)
            return 0.0
        waited_s = offset_s - min(known.least_s, known.least_before_s)
        if now_s - known.since_s >= WINDOW_S:
            known.least_before_s, known.least_s, known.since_s = known.least_s, offset_s, now_s
        else:
            known.least_s = min(known.least_s, offset_s)
        return max(waited_s, 0.0)
