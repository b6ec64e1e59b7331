"""When each command of a load was answered, from the logs of its clients."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from chaos.load.client_log import ACKNOWLEDGED, REJECTED, UNKNOWN, read_lines

REJECTIONS_THAT_PASS = 500
"""Reject reasons from here on say something of the moment: not executed, and worth trying again."""


class Answer(NamedTuple):
    """What one attempt was told. Times in s since the load began; `due_s` is of the request, whatever its attempts."""

    kind: str
    market: str
    due_s: float
    done_s: float
    outcome: int
    reason: int
    is_duplicate: bool
    line: str
    gateway: str = ""
    """Where the request was sent first: its address, as the client has it."""

    @property
    def is_definite(self) -> bool:
        """Whether it was done, or refused for what it is: an answer that serves its client."""
        return self.outcome == ACKNOWLEDGED or (self.outcome == REJECTED and 0 < self.reason < REJECTIONS_THAT_PASS)

    @property
    def is_unknown(self) -> bool:
        return self.outcome == UNKNOWN

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s


def read_answers(logs: Path, clients: Collection[str], begun_monotonic_ns: int) -> list[Answer]:
    """Return the answers of all clients in order of time."""
    answers = [answer for client in clients for answer in _of_client(logs / f"{client}.log", begun_monotonic_ns)]
    answers.sort(key=lambda answer: answer.done_s)
    return answers


def _of_client(path: Path, begun_ns: int) -> Iterable[Answer]:
    due_ns: dict[tuple[int, int], int] = {}
    first_gateway: dict[int, str] = {}
    for line, where in read_lines(path):
        if line["e"] == "send":
            due_ns[line["m"], line["i"]] = line["due"]
            first_gateway.setdefault(line["due"], line["gw"])
        elif line["e"] == "out":
            due = due_ns.pop((line["m"], line["i"]))
            yield Answer(
                line["k"],
                line["sym"],
                (due - begun_ns) / 1e9,
                (line["t"] - begun_ns) / 1e9,
                line["o"],
                line.get("rej", 0),
                line.get("dup", False),
                where,
                first_gateway[due],
            )


def percentile_ms(answers: Iterable[Answer], percent: float) -> float:
    """Return a percentile of the latencies in ms, exactly; 0 of none."""
    latencies = sorted(answer.latency_s for answer in answers)
    if not latencies:
        return 0.0
    return latencies[min(int(len(latencies) * percent / 100.0), len(latencies) - 1)] * 1e3
