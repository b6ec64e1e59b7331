"""Whether packets pass, seen by a connection that is tried."""

from __future__ import annotations

import errno
import socket

CLOSED_PORT = 9
"""Where nobody listens: who is there refuses at once, and who is cut off says nothing."""
ANSWER_S_MAX = 1.0


def passes(host: str, port: int) -> bool:
    """Whether a host answers, be it that it refuses."""
    with socket.socket() as probe:
        probe.settimeout(ANSWER_S_MAX)
        return probe.connect_ex((host, port)) in (0, errno.ECONNREFUSED)
