"""A process that runs commands and keeps what they leave behind, until its stdin closes: then it kills all of it.

`ray start` leaves daemons. Here they become children of the keeper rather than of process 1, so that they are reaped
when they die (a raylet that is not goes on counting as alive for its workers) and end when the one who wanted them
does, however it ended. It speaks lines of JSON:

    stdin   {"argv": [...], "environment": {...}, "output": "FILE"}
    stdout  {"started": PID}, then {"ended": PID, "code": EXIT_CODE} for this one and for whatever else ends
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from exchange.processes import descendants, send_signal

_PR_SET_CHILD_SUBREAPER = 36


def _say(**fields: Any) -> None:
    # Unbuffered, because it is called from the signal handler too.
    os.write(1, json.dumps(fields).encode() + b"\n")


def _reap() -> bool:
    """Take note of each child that ended; return whether there are others."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        _say(ended=pid, code=os.waitstatus_to_exitcode(status))


def _run(line: str) -> None:
    command = json.loads(line)
    output = (command["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, *output)]
    # Not reaped before it is announced.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        pid = os.posix_spawn(
            command["argv"][0],
            command["argv"],
            command["environment"],
            file_actions=[*actions, (os.POSIX_SPAWN_DUP2, 1, 2)],
            setsigmask=set(),
            setsigdef={signal.SIGINT, signal.SIGTERM},
        )
        _say(started=pid)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def main() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ctrl-C in a terminal reaches the whole group; it is for the one at the other end to say when it is over.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: _reap() and None)
    for line in sys.stdin:
        _run(line)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads any more
    while _reap():
        send_signal(signal.SIGKILL, (process.pid for process in descendants(os.getpid())))
        time.sleep(0.01)


if __name__ == "__main__":
    main()
