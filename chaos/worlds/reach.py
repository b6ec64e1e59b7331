"""Whether packets pass, seen by a connection that is tried."""

from __future__ import annotations

import errno
import socket

CLOSED_PORT = 9
"""Where nobody listens: who is there refuses at once, and who is cut off says nothing."""
ANSWER_S_MAX = 1.0


def passes(host: str, port: int) -> bool:
    """Whether a host answers, be it that it refuses."""
    return _try(host, port) in (0, errno.ECONNREFUSED)


def listens(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    return _try(host, port) == 0


def _try(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.settimeout(ANSWER_S_MAX)
        return probe.connect_ex((host, port))
