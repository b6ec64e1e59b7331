"""The cheap rules, while a run goes on: from what clients log, second by second, and what the status says.

What is found here is found again in the whole history, with more evidence; here it is found in time to stop.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from chaos.invariants.told import CANCELS, OUTCOME_S_MAX, is_shed
from chaos.load.client_log import ACKNOWLEDGED, Line

TRADE, CANCELLED = 2, 3
_FORBIDDING = ("REPLAYING", "CANCEL_ONLY", "HALTED")
STAGE_KNOWN_S = 1.0
"""The status must have shown a stage for so long before and after an order for the order to be held against it."""
FOUND_PER_RULE_MAX = 20
_LOG, _EXECUTIONS = ".log", ".executions.log"


class Found(NamedTuple):
    """A rule that was seen broken. `t_s`: when, on the clock of the logs (CLOCK_MONOTONIC)."""

    rule: str
    t_s: float
    summary: str
    evidence: str


class _Sent(NamedTuple):
    t_ns: int
    where: str


class LiveChecks:
    """Takes lines of client logs as they come, and each stage that the status shows."""

    def __init__(
        self,
        markets: Mapping[str, str],
        *,
        outcome_s_max: float = OUTCOME_S_MAX,
        memory_mb_max: float = float("inf"),
    ) -> None:
        self.findings: list[Found] = []
        self.looked_at: dict[str, int] = {}
        self._markets = markets
        self._outcome_ns_max = int(outcome_s_max * 1e9)
        self._memory_mb_max = memory_mb_max
        self._open: dict[tuple[str, int], _Sent] = {}
        """Messages without an outcome, the oldest first."""
        self._order_ids: dict[tuple[str, str], tuple[int, str]] = {}
        self._cancelled: dict[tuple[str, int], tuple[int, str]] = {}
        """By market and order id: the sequence of the cancel that was acknowledged."""
        self._stages: dict[str, tuple[str, float, float]] = {}
        """By shard: the stage that was shown, since when, and when last."""
        self._accepted: deque[tuple[str, float, float, str]] = deque()
        """Orders that came while a stage was shown that forbids them: shard, since when, when, and place."""
        self._books: dict[str, tuple[dict[int, int], dict[int, int]]] = {}
        self._crossed: set[str] = set()

    # ---------------------------------------------------------------- what comes in

    def status(self, shard: str, stage: str, t_s: float) -> None:
        """Note the stage that the status shows, at a time on the logs' clock."""
        before, since_s, _ = self._stages.get(shard, ("", t_s, t_s))
        self._stages[shard] = stage, since_s if stage == before else t_s, t_s

    def memory(self, memory_mb: float, t_s: float) -> None:
        """Note what the exchange's processes have in memory together."""
        self._look("I13")
        if memory_mb > self._memory_mb_max:
            self._violate(
                "I13", t_s, f"{memory_mb:.0f} MB in memory, at most {self._memory_mb_max:.0f} are allowed", ""
            )

    def lines(self, file: str, lines: Iterable[tuple[Line, str]]) -> None:
        """Take the next lines of a log, each with its place."""
        if file.endswith(_EXECUTIONS):
            for line, where in lines:
                self._execution(line, where)
        elif ".book-" in file:
            for line, where in lines:
                self._book(file, line, where)
        else:
            for line, where in lines:
                self._said(file, line, where)

    def look(self, now_s: float) -> None:
        """Find the messages that have waited for too long, and the orders whose stage is known by now."""
        while self._accepted and now_s > self._accepted[0][2] + 2 * STAGE_KNOWN_S:
            shard, since_s, t_s, where = self._accepted.popleft()
            stage, still_since_s, last_s = self._stages[shard]
            if since_s == still_since_s and last_s > t_s + STAGE_KNOWN_S:
                self._violate(
                    "I9", t_s, f"an order was accepted {t_s - since_s:.1f} s after {shard} was {stage}", where
                )
        for key, sent in list(self._open.items()):
            waited_ns = int(now_s * 1e9) - sent.t_ns
            if waited_ns <= self._outcome_ns_max:
                break
            del self._open[key]
            self._violate("I10", now_s, f"no outcome after {waited_ns / 1e9:.1f} s", sent.where)

    # ---------------------------------------------------------------- rules

    def _said(self, file: str, line: Line, where: str) -> None:
        if line["e"] == "send":
            self._open.setdefault((file, line["m"]), _Sent(line["t"], where))
        elif line["e"] == "out":
            sent = self._open.pop((file, line["m"]), None) if line["i"] == 0 else None
            self._look("I10")
            t_s = line["t"] / 1e9
            if sent is not None and line["t"] - sent.t_ns > self._outcome_ns_max:
                self._violate("I10", t_s, f"an outcome came after {(line['t'] - sent.t_ns) / 1e9:.1f} s", where)
            if line["k"] == "place":
                self._placed(file, line, where, sent)
            elif line["k"] in CANCELS:
                self._look("I8")
                if is_shed(line):
                    self._violate("I8", t_s, f"a cancel of {line['id'] or 'all orders'} was refused for load", where)
                elif line["o"] == ACKNOWLEDGED and line.get("st") == CANCELLED and line.get("seq"):
                    self._cancelled.setdefault((line["sym"], line["oid"]), (line["seq"], where))

    def _placed(self, file: str, line: Line, where: str, sent: _Sent | None) -> None:
        order_id, t_s = line.get("oid", 0), line["t"] / 1e9
        if line["o"] != ACKNOWLEDGED or not order_id:
            return
        self._look("I2")
        before, first = self._order_ids.setdefault((file, line["id"]), (order_id, where))
        if before != order_id:
            self._violate("I2", t_s, f"{line['id']!r} took effect as orders {before} and {order_id} ({first})", where)
        if line.get("dup") or sent is None:
            return
        self._look("I9")
        shard = self._markets[line["sym"]]
        stage, since_s, _ = self._stages.get(shard, ("", 0.0, 0.0))
        if stage in _FORBIDDING and sent.t_ns / 1e9 - since_s > STAGE_KNOWN_S:
            self._accepted.append((shard, since_s, t_s, where))

    def _execution(self, line: Line, where: str) -> None:
        if line["e"] != "exec" or line["x"][0] != TRADE:
            return
        symbol, order_id = line["x"][1], line["x"][3]
        cancelled = self._cancelled.get((symbol, order_id))
        if cancelled is not None and line["seq"] > cancelled[0]:
            summary = (
                f"order {order_id} in {symbol} traded at {line['seq']}, its cancel was acknowledged at {cancelled[0]}"
            )
            self._violate("I8", line["t"] / 1e9, f"{summary} ({cancelled[1]})", where)

    def _book(self, file: str, line: Line, where: str) -> None:
        if line["e"] != "book":
            return
        if line["snap"]:
            self._books[file] = {}, {}
        sides = self._books.setdefault(file, ({}, {}))
        for levels, rows in zip(sides, (line["bids"], line["asks"]), strict=True):
            for price, quantity, orders in rows:
                if orders:
                    levels[price] = quantity
                else:
                    levels.pop(price, None)
        bids, asks = sides
        self._look("I5")
        if bids and asks and max(bids) >= min(asks) and file not in self._crossed:
            self._crossed.add(file)
            summary = f"the book of {line['sym']} is crossed at {line['seq']}: bid {max(bids)}, ask {min(asks)}"
            self._violate("I5", line["t"] / 1e9, summary, where)

    def _look(self, rule: str) -> None:
        self.looked_at[rule] = self.looked_at.get(rule, 0) + 1

    def _violate(self, rule: str, t_s: float, summary: str, evidence: str) -> None:
        if sum(found.rule == rule for found in self.findings) < FOUND_PER_RULE_MAX:
            self.findings.append(Found(rule, t_s, summary, evidence))


class LogTail:
    """Reads what was added to the logs of a directory since it last looked; a line that is not whole yet waits."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._at: dict[Path, tuple[int, int]] = {}

    def take(self, into: Callable[[str, Iterable[tuple[Line, str]]], None]) -> None:
        """Give the new lines of each log to `into`: what was told before what was executed, as I8 needs it."""
        for path in sorted(self._directory.glob(f"*{_LOG}"), key=lambda p: (p.name.endswith(_EXECUTIONS), p.name)):
            offset, number = self._at.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if not whole:
                continue
            texts = whole.splitlines()
            self._at[path] = offset + len(whole), number + len(texts)
            into(path.name, ((json.loads(text), f"{path.name}:{number + n}") for n, text in enumerate(texts, 1)))
