"""`journal_nats`: records per second on three NATS servers of this machine, beside the journal in files."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from exchange.cli.bench import Figure
from exchange.cli.errors import CommandFailed
from exchange.runtime.journal import FileJournal, Journal
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.nats_servers import NatsServers, NatsServersError

RECORDS = 500
RECORD_BYTES = 16 << 10
ROUNDS = 5


def measure() -> Figure:
    """Return the medians of the rounds; the two take turns, on the same disk."""
    payload = os.urandom(RECORD_BYTES)
    with tempfile.TemporaryDirectory(prefix="evenkeel-bench-", dir=".") as directory:
        try:
            servers = NatsServers.start(Path(directory) / "nats")
        except NatsServersError as error:
            raise CommandFailed(error.code, str(error)) from error
        with servers:
            nats = NatsJournal.open(servers.settings(), "bench")
            file = FileJournal.open(Path(directory) / "file", "bench")
            epochs = nats.acquire(), file.acquire()
            rates = [(_rate(nats, epochs[0], payload), _rate(file, epochs[1], payload)) for _ in range(ROUNDS)]
            nats.close()
            file.close()
    value, reference = median(rate for rate, _ in rates), median(rate for _, rate in rates)
    detail = f"records of {RECORD_BYTES >> 10} KB, 3 servers, one disk; reference: the journal in files"
    return Figure("journal_nats", value, "records/s", reference, median(a / b for a, b in rates), detail)


def _rate(journal: Journal, epoch: int, payload: bytes) -> float:
    started_s = time.perf_counter()
    for _ in range(RECORDS):
        journal.append(epoch, journal.last_sequence + 1, payload)
    return RECORDS / (time.perf_counter() - started_s)
