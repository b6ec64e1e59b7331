"""A report as the protocol has it."""

from __future__ import annotations

from exchange.engine.money import format_amount
from exchange.supervisor.audit.words import AssetLine, AuditReport, Break
from exchange.v1 import admin_pb2

BREAKS_SHOWN_MAX = 100
"""So that a report fits a message."""


def encode_report(report: AuditReport) -> admin_pb2.AuditResponse:
    """Return it with amounts as decimal strings; those of an asset whose scale is not known as units."""
    notes = list(report.notes)
    if len(report.breaks) > BREAKS_SHOWN_MAX:
        notes.append(f"{len(report.breaks)} breaks, of which the first {BREAKS_SHOWN_MAX} are shown")
    scales = {line.asset: line.scale for line in report.assets}
    return admin_pb2.AuditResponse(
        balanced=report.is_balanced,
        complete=report.is_complete,
        unavailable=report.unavailable,
        assets=map(_encode_line, report.assets),
        accounts=report.accounts,
        orders=report.orders,
        trades=report.trades,
        machines=[
            admin_pb2.AuditedMachine(name=name, sequence=sequence, since_sequence=since)
            for name, (sequence, since) in report.cut.items()
        ],
        breaks=[_encode_break(found, scales.get(found.asset, 0)) for found in report.breaks[:BREAKS_SHOWN_MAX]],
        notes=notes,
        time_ns=report.time_ns,
    )


def _encode_line(line: AssetLine) -> admin_pb2.AuditedAsset:
    return admin_pb2.AuditedAsset(
        asset=line.asset,
        supply=format_amount(line.supply, line.scale),
        ledger=format_amount(line.ledger, line.scale),
        escrow=[
            admin_pb2.AuditedEscrow(shard=shard, amount=format_amount(units, line.scale))
            for shard, units in line.escrow.items()
        ],
        under_way=format_amount(line.under_way, line.scale),
        difference=format_amount(line.difference, line.scale),
    )


def _encode_break(found: Break, scale: int) -> admin_pb2.AuditBreak:
    return admin_pb2.AuditBreak(
        rule=found.rule,
        kind=str(found.kind),
        asset=found.asset,
        account_ids=found.accounts,
        shards=found.shards,
        subject=found.subject,
        expected=format_amount(found.expected, scale),
        found=format_amount(found.found, scale),
        machines=[admin_pb2.AuditedMachine(name=name, sequence=sequence) for name, sequence in found.sequences],
        events=found.events,
        summary=found.describe(scale),
    )
