"""What Ray has to say about the exchange's processes does not run over the terminal of `exchange up`."""

from __future__ import annotations

import os
import subprocess
import sys

DEATH = (
    "A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the problem, "
    "check the logs for the dead worker. Lease ID: 0200 Worker ID: 8c1a Node ID: 29ab Worker PID: 14700"
)
OTHER = "This node is out of disk space."
# Calls what Ray's listener calls with each message of the raylet: of a real one, nobody knows when it would come.
PROGRAM = f"""
import exchange.cluster
from ray._private.worker import print_to_stdstream
for line in ({DEATH!r}, {OTHER!r}):
    print_to_stdstream({{"lines": [line], "pid": "raylet", "is_err": False}}, ignore_prefix=False)
"""


def printed(environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout


def test_the_death_of_a_worker_is_not_printed_and_the_rest_is() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_DEDUP_LOGS")}
    output = printed(environment)
    assert DEATH not in output
    assert OTHER in output


def test_who_wants_to_see_it_can() -> None:
    assert DEATH in printed({**os.environ, "RAY_DEDUP_LOGS_SKIP_REGEX": "^nothing$"})
