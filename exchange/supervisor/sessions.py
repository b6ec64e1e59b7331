"""Which sessions have ended: all but those of the gateways that were started last."""

from __future__ import annotations

from collections.abc import Iterable

from exchange.engine.commands import CancelSessions

SESSION_BITS = 32
"""The sessions of a gateway are its incarnation shifted by so many bits, plus the number of the stream."""


def cancel_ended(living: Iterable[int], newest: int) -> list[CancelSessions]:
    """Return the commands that cancel what ended sessions placed.

    `living` are the incarnations whose sessions go on, `newest` is the last incarnation that anybody was given. Told
    from the living rather than the dead, it takes no memory of who died, and a repeat harms nothing.
    """
    first = 1  # 0 is an order without a session
    cancels = []
    for incarnation in [*sorted(living), newest + 1]:
        cancels.append(CancelSessions(first, (incarnation << SESSION_BITS) - 1))
        first = (incarnation + 1) << SESSION_BITS
    return [cancel for cancel in cancels if cancel.first <= cancel.last]
