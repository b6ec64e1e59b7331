"""The shard machine passes tracebook's conformance campaign, and a planted fault does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ADAPTER = Path(__file__).with_name("tracebook_adapter.py")


def campaign(directory: Path, *arguments: str, traces: int) -> subprocess.CompletedProcess[str]:
    candidate = f"{sys.executable} {ADAPTER} {' '.join(arguments)}"
    command = "import sys; from tracebook.conformance.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ["campaign", "--profile", "fifo-full-v1", "--seed", "42", "--traces", str(traces)]
    options += ["--events-per-trace", "200", "--candidate-cmd", candidate, "--corpus-dir", str(directory)]
    return subprocess.run(
        [sys.executable, "-c", command, *options, "--stop-after-first"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_shard_conforms_to_fifo_full_v1(tmp_path: Path) -> None:
    done = campaign(tmp_path, traces=15)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]


def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    assert campaign(tmp_path, "--fault", traces=5).returncode == 1
