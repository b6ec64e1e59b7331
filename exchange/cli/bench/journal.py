"""`journal`: records per second, each durable, beside bare write and fdatasync of the same sizes."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from exchange.cli.bench import Figure
from exchange.runtime.journal import FileJournal

RECORDS = 1_000
RECORD_BYTES = 16 << 10
ROUNDS = 5


def measure() -> Figure:
    """Return the medians of the rounds; the two take turns, in the same directory."""
    payload = os.urandom(RECORD_BYTES)
    rates = []
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-", dir=".") as directory:
        journal = FileJournal.open(Path(directory) / "journal", "bench")
        epoch = journal.acquire()
        for number in range(ROUNDS):
            started_s = time.perf_counter()
            for _ in range(RECORDS):
                journal.append(epoch, journal.last_sequence + 1, payload)
            ours = RECORDS / (time.perf_counter() - started_s)
            rates.append((ours, _bare(Path(directory) / f"bare-{number}", payload)))
        journal.close()
    value, reference = median(rate for rate, _ in rates), median(rate for _, rate in rates)
    detail = f"records of {RECORD_BYTES >> 10} KB; reference: bare write + fdatasync"
    return Figure("journal", value, "records/s", reference, median(a / b for a, b in rates), detail)


def _bare(path: Path, payload: bytes) -> float:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    started_s = time.perf_counter()
    for _ in range(RECORDS):
        os.write(descriptor, payload)
        os.fdatasync(descriptor)
    seconds = time.perf_counter() - started_s
    os.close(descriptor)
    return RECORDS / seconds
