"""A run that is told to end, as by who stops a pipeline: it takes everything back, says so, and leaves no process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.run.record import EVENTS_FILE, VERDICT_FILE, Event, ExitCode, read_lines

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
LIMIT_S = 100.0
MARK = "EVENKEEL_TEST_RUN"
EXPERIMENT = """
title: Readers do not read for longer than anybody waits
environment: {shards: 1, gateways: 1}
load: [{name: clients, behaviour: flow, clients: 2, per_s: 20}]
phases:
  - {name: steady, duration_s: 3}
  - name: not-reading
    duration_s: 600
    is_trigger: true
    faults: [{fault: slow-reader, target: gateway-0, at_s: 0, for_s: 600, arguments: {readers: 2}}]
invariants: [I1, I10]
"""


def marked(mark: str) -> list[str]:
    """Return the command lines of all processes that were started with this mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass  # it has ended, or is not ours
    return found


def events(directory: Path) -> list[Event]:
    return list(read_lines(directory / EVENTS_FILE, Event)) if (directory / EVENTS_FILE).exists() else []


def test_sigterm_ends_a_run_in_the_middle_of_a_fault_and_nothing_is_left(tmp_path: Path) -> None:
    file, out, mark = tmp_path / "readers.yaml", tmp_path / "out", str(tmp_path)
    file.write_text(EXPERIMENT)
    command = [sys.executable, "-m", "chaos.cli", "run", str(file), "--out", str(out)]
    with subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, text=True) as run:
        give_up_s = time.monotonic() + LIMIT_S
        while not any(event.kind == "fault" and event.what == "injected" for event in events(out)):
            assert run.poll() is None
            assert time.monotonic() < give_up_s, f"no fault within {LIMIT_S:g} s: {events(out)}"
            time.sleep(0.1)
        assert len(marked(mark)) > 3
        run.terminate()
        printed, _ = run.communicate(timeout=LIMIT_S)
    assert run.returncode == ExitCode.ABORTED, printed
    verdict = json.loads((out / VERDICT_FILE).read_bytes())
    assert verdict["exit_code"] == ExitCode.ABORTED
    assert any(event.kind == "rollback" and event.what == "taken back" for event in events(out))
    assert marked(mark) == []
