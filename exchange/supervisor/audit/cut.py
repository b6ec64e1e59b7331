"""All machines at one cut, added up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exchange.supervisor.audit.channel import AuditedChannel
from exchange.supervisor.audit.words import AssetLine, AuditReport, Break, BreakKind, LedgerCut, ShardCut


class CutCheck:
    """Checks one cut after another; `on_break` gets what is found."""

    def __init__(self, on_break: Callable[[Break], None]) -> None:
        self._channels: dict[str, AuditedChannel] = {}
        self._on_break = on_break

    def check(
        self,
        report: AuditReport,
        ledger: LedgerCut | None,
        shards: Mapping[str, ShardCut],
        found: Mapping[str, Break],
    ) -> None:
        """Fill a report. `found` has all breaks since the last one, also those that are found now.

        The ledger (None: it is away) was taken after all shards. Without all machines there is no sum to compare, but
        each shard's messages are checked.
        """
        lines: dict[str, AssetLine] = {}

        def line(asset: str) -> AssetLine:
            scale = ledger.scales.get(asset, 0) if ledger is not None else 0
            return lines.setdefault(asset, AssetLine(asset, scale))

        if ledger is not None:
            report.accounts = ledger.accounts
            report.cut["ledger"] = ledger.sequence, ledger.since
            for asset in ledger.scales:
                line(asset).supply = ledger.supply.get(asset, 0)
                line(asset).ledger = ledger.balances.get(asset, 0)
        for name, shard in shards.items():
            report.accounts = max(report.accounts, shard.accounts)
            report.orders += shard.orders
            report.trades += shard.trades
            report.cut[name] = shard.sequence, shard.since
            for asset, units in shard.owned.items():
                line(asset).escrow[name] = units
            if ledger is not None:
                channel = self._channels.get(name)
                if channel is None:
                    channel = self._channels[name] = AuditedChannel(name, self._on_break)
                for asset, units in channel.check(shard, ledger).items():
                    line(asset).under_way += units
        report.assets = [lines[asset] for asset in sorted(lines)]
        if report.is_complete:
            self._compare_sums(report, {known.asset for known in found.values()})

    def _compare_sums(self, report: AuditReport, explained: set[str]) -> None:
        at = tuple((machine, sequence) for machine, (sequence, _) in report.cut.items())
        for line in report.assets:
            # A break that was found closer to its cause says more, and names fewer shards.
            if line.difference and line.asset not in explained:
                shards = tuple(line.escrow)
                there = line.supply + line.difference
                subject = "in the ledger, in shards and under way"
                self._on_break(Break(BreakKind.SUPPLY, line.asset, shards, line.supply, there, (), subject, at))
