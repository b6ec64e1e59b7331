"""The verdict on a history: from the journals, the clients' logs and what the status said, afterwards."""

from __future__ import annotations

import gc
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from chaos.invariants.findings import Findings
from chaos.invariants.history import History
from chaos.invariants.money import LedgerMoney, ShardMoney, check_money
from chaos.invariants.replay import KINDS, HashClaim, replay
from chaos.invariants.shard import ShardChecker
from chaos.invariants.told import OUTCOME_S_MAX, ClientLogs, read_logs
from chaos.load.client_log import REJECTED, Logged
from exchange.runtime.machine import MachineType


def check_history(
    history: History,
    machines: Mapping[str, str],
    logged: Logged,
    logs: Path,
    status_log: Path,
    kinds: Mapping[str, MachineType] = KINDS,
    naive_commands_max: int = 1_000,
    outcome_s_max: float = OUTCOME_S_MAX,
) -> Findings:
    """Check all machines (name to kind) and all that clients were told.

    `naive_commands_max`: so many of the first commands of each shard the naive shard does, too; its time grows by the
    square of that. `outcome_s_max`: more than I10 allows is for machines that are too busy to tell.
    """
    findings = Findings()
    told = read_logs(logged, logs)
    findings.notes += [f"{name} has no end: its client was stopped" for name, ended in told.ended.items() if not ended]
    findings.check("I10 messages that got their outcome", told.messages)
    findings.notes.append(f"the slowest outcome took {told.slowest_s:.2f} s")
    for took_s, line in told.late:
        if took_s > outcome_s_max:
            findings.violate("I10", f"an outcome came after {took_s:.1f} s", line)
    findings.check("I8 cancels that got an outcome", told.cancels)
    for name, line in told.cancels_shed:
        findings.violate("I8", f"a cancel of {name or 'all orders'} was refused for load", line)
    claims = read_status(status_log, findings)
    read_events(status_log.with_name("events.log"), findings)
    gc.disable()
    try:
        checkers = {}
        ledger: LedgerMoney | None = None
        escrows: dict[str, ShardMoney] = {}
        for machine, kind in machines.items():
            all_claims = [*claims[machine], *history.claims(machine)]
            records = history.records(machine, findings)
            money: LedgerMoney | ShardMoney | None = None
            if kind == "shard":
                money = escrows[machine] = ShardMoney(machine, findings)
            elif kind == "ledger":
                money = ledger = LedgerMoney(findings)
            look = money.compare if money is not None else None
            steps = replay(machine, kinds[kind], records, all_claims, findings, naive_commands_max, look)
            checker: ShardChecker | None = None
            if kind == "shard":
                checker = checkers[machine] = ShardChecker(machine, told, findings)
                checker.listen_to(market for market, shard in logged.markets.items() if shard == machine)
            for step in steps:
                if checker is not None:
                    checker.step(step)
                if money is not None:
                    money.step(step)
            if checker is not None:
                checker.finish()
        if ledger is not None:
            check_money(ledger, escrows, findings)
    finally:
        gc.enable()
    check_stories(told, logged, checkers, findings)
    return findings


def check_stories(told: ClientLogs, logged: Logged, checkers: Mapping[str, ShardChecker], findings: Findings) -> None:
    """Check what clients know of each order in the end, over all that they were told of it."""
    for (account, name), story in told.orders.items():
        shard = logged.markets[story.placed.instrument]
        checker = checkers.get(shard)
        if checker is None:
            continue
        order_id = checker.books.accepted.get((account, name), 0)
        who = f"{shard}: {name!r} of account {account}"
        if story.outcomes == {REJECTED} and order_id and not story.order_id:
            # Each time that it was sent the client was told that it surely was not, or never would be, executed.
            findings.violate("I1", f"{who} was refused, and took effect as order {order_id}", story.line)
        if story.order_id and story.order_id != order_id:
            found = f"GetOrder found order {story.order_id}, the history has {order_id}"
            findings.violate("I1", f"{who}: {found}", story.order_line)
        if story.absent_ns and order_id and max(story.sent_ns) <= story.absent_ns:
            summary = f"{who}: GetOrder knew no such order, and the history has {order_id}"
            findings.violate("I1", summary, story.absent_line)
        findings.check("I1 orders whose whole story was checked")


def read_status(path: Path, findings: Findings) -> Mapping[str, list[HashClaim]]:
    """Return the hashes that components told; check that no epoch had two writers."""
    claims: dict[str, list[HashClaim]] = defaultdict(list)
    writers: dict[tuple[str, int], tuple[int, str]] = {}
    if not path.exists():
        return claims
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = json.loads(text)
        where = f"{path.name}:{number}"
        if line["hash"] and line["hash_seq"]:
            claims[line["name"]].append(HashClaim(line["hash"], where, sequence=line["hash_seq"]))
        if not line["epoch"] or not line["pid"] or line.get("standby"):
            continue
        pid, first = writers.setdefault((line["name"], line["epoch"]), (line["pid"], where))
        findings.check("I7 writers of epochs seen")
        if pid != line["pid"]:
            summary = f"{line['name']}: epoch {line['epoch']} has two writers, {pid} and {line['pid']}"
            findings.violate("I7", summary, first, where)
    return claims


def read_events(path: Path, findings: Findings) -> None:
    """Check that no standby was given up since its state was another than its primary's."""
    if not path.exists():
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        event = json.loads(text)
        findings.check(f"events: {event['kind']}")
        if "another than the primary's" in event["detail"]:
            findings.violate("I6", f"{event['component']}: {event['detail']}", f"{path.name}:{number}")
