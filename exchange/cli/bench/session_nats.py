"""`session_nats`: commands per second over a `Trade` stream with the journal on NATS servers, beside files."""

from __future__ import annotations

from statistics import median

import uvloop

from exchange.cli.bench import Figure
from exchange.cli.bench.live import targets
from exchange.cli.bench.session import measure_rounds
from exchange.cli.errors import CommandFailed
from exchange.runtime.nats_servers import NatsServersError


def measure() -> Figure:
    """Return the medians; the ratio is that of the two ratios to the echo, as the two run one after the other."""
    file, file_of_echo = _rate("file")
    try:
        nats, nats_of_echo = _rate("nats")
    except NatsServersError as error:
        raise CommandFailed(error.code, str(error)) from error
    detail = (
        f"3 servers, one disk; reference: the journal in files; {nats_of_echo:.3f} and {file_of_echo:.3f} of the echo"
    )
    return Figure("session_nats", nats, "commands/s", file, nats_of_echo / file_of_echo, detail)


def _rate(journal: str) -> tuple[float, float]:
    """Return commands per second with messages that lie ready, and their ratio to those of the echo."""
    with targets(journal) as at:
        ready = [rates for _, rates in uvloop.run(measure_rounds(at))]
    return median(rate for rate, _ in ready), median(ours / echo for ours, echo in ready)
