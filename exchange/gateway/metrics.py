"""What there is to see of an exchange, as Prometheus metrics.

Each gateway has all of it: its own load and its copies of the shards are always fresh, the rest is as the supervisor
has told last. So the metrics are there while the supervisor is away, and say so; and they are there as long as any
gateway is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exchange.engine.words import Stage
from exchange.v1 import admin_pb2

UP = admin_pb2.COMPONENT_STATE_UP


class ShardSeen(NamedTuple):
    """A shard as the gateway's copy has it."""

    stage: int
    epoch: int
    sequence: int


class Seen(NamedTuple):
    """What one scrape shows. `status_age_s`: since the supervisor told the status."""

    gateway: str
    load: admin_pb2.GatewayLoad
    shards: Mapping[str, ShardSeen]
    status: admin_pb2.GetStatusResponse
    status_age_s: float
    is_supervisor_up: bool


class _Families:
    """The metrics of a scrape, each made when it is first needed, so that its name stands where its values do."""

    def __init__(self) -> None:
        self._families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}

    def gauge(self, name: str, about: str, value: float, **labels: str) -> None:
        self._add(GaugeMetricFamily, name, about, value, labels)

    def counter(self, name: str, about: str, value: float, **labels: str) -> None:
        self._add(CounterMetricFamily, name, about, value, labels)

    def _add(
        self,
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        about: str,
        value: float,
        labels: Mapping[str, str],
    ) -> None:
        if name not in self._families:
            self._families[name] = kind(f"evenkeel_{name}", about, labels=list(labels))
        self._families[name].add_metric(list(labels.values()), value)

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def render(seen: Seen) -> bytes:
    """Return the metrics in Prometheus' text format."""
    families = _Families()
    families.gauge("supervisor_up", "Whether the active supervisor answers.", seen.is_supervisor_up)
    families.gauge("status_age_seconds", "Since the supervisor has told the status.", seen.status_age_s)
    _add_status(families, seen.status)
    for shard, copy in seen.shards.items():
        families.gauge(
            "shard_stage",
            "1 REPLAYING, 2 CANCEL_ONLY, 3 POST_ONLY, 4 LIMITED, 5 OPEN, 6 HALTED.",
            copy.stage,
            shard=shard,
        )
        families.gauge("shard_open", "Whether it takes every order.", copy.stage == Stage.OPEN, shard=shard)
        families.gauge("shard_epoch", "Of its writer: one more with each takeover.", copy.epoch, shard=shard)
        families.counter("shard_commands", "Commands in its history.", copy.sequence, shard=shard)
    for supervisor in seen.status.supervisors:
        is_up = supervisor.state == UP
        families.gauge("supervisor_process_up", "Whether the process answers.", is_up, supervisor=supervisor.name)
    for component in seen.status.components:
        _add_component(families, component)
    for machine, lag in standby_lags(seen.status).items():
        families.gauge("standby_lag_records", "By how much the standby is behind.", lag, machine=machine)
    _add_gateway(families, seen.gateway, seen.load)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(families)
    return generate_latest(registry)


def _add_status(families: _Families, status: admin_pb2.GetStatusResponse) -> None:
    families.gauge("audit_breaks", "Rules of the books that were found broken.", status.audit_breaks)
    families.gauge("settings_version", "Of the settings that hold.", status.settings_version)
    families.gauge("rollout_under_way", "Whether settings are being rolled out.", status.rolling_version > 0)
    reverted = status.rollout_state == admin_pb2.ROLLOUT_STATE_REVERTED
    families.gauge("rollout_reverted", "Whether the newest settings were taken back.", reverted)


def _add_component(families: _Families, component: admin_pb2.Component) -> None:
    name = component.name
    families.gauge("component_up", "Whether the process answers.", component.state == UP, component=name)
    is_parked = component.state == admin_pb2.COMPONENT_STATE_PARKED
    families.gauge("component_parked", "Whether it is down until a person lets it go.", is_parked, component=name)
    families.counter("component_restarts", "Since the supervisor became active.", component.restarts, component=name)
    if not component.HasField("machine_load"):
        return
    load = component.machine_load
    families.gauge("machine_commands_per_second", "What it does.", load.commands_per_s, machine=name)
    families.gauge("machine_capacity_per_second", "What it could do; 0: not known.", load.capacity_per_s, machine=name)
    families.gauge(
        "machine_utilisation", "The share of its time that goes into commands.", load.utilisation, machine=name
    )
    families.counter("machine_admitted_commands", "Commands that it took.", load.admitted, machine=name)
    families.counter("machine_late_commands", "Past their deadline before the journal.", load.late, machine=name)
    families.counter("machine_shed_commands", "Refused, as they would have waited too long.", load.shed, machine=name)
    families.gauge(
        "journal_lag_seconds",
        "How long the record that is written has been under way.",
        load.journal_lag_ms / 1_000,
        machine=name,
    )
    _add_delays(families, "machine_delay_p99_seconds", load.classes, machine=name)


def _add_gateway(families: _Families, gateway: str, load: admin_pb2.GatewayLoad) -> None:
    families.counter("gateway_requests", "Requests to trade.", load.requests, gateway=gateway)
    families.counter("gateway_commands", "Commands in them.", load.commands, gateway=gateway)
    families.counter(
        "gateway_rate_limited_commands", "Above their account's limit.", load.rate_limited, gateway=gateway
    )
    for link in load.links:
        ends = {"gateway": gateway, "machine": link.machine}
        families.gauge("link_credits", "Commands that may be under way at once.", link.limit, **ends)
        families.gauge("link_refusing_ratio", "What the breaker refuses.", link.refusing, **ends)
        _add_delays(families, "link_delay_p99_seconds", link.classes, **ends)
        for row in link.classes:
            families.gauge("link_queued_commands", "What waits.", row.queued, **ends, work_class=row.work_class)
            families.gauge(
                "link_served_per_second", "Commands; 0: not known.", row.served_per_s, **ends, work_class=row.work_class
            )
            for reason, count in row.shed.items():
                labels = {**ends, "work_class": row.work_class, "reason": reason}
                families.counter("link_shed_commands", "Commands that were refused.", count, **labels)


def _add_delays(families: _Families, name: str, classes: Iterable[admin_pb2.ClassLoad], **labels: str) -> None:
    for row in classes:
        seconds = row.p99_delay_ms / 1_000
        families.gauge(name, "The 99th percentile of the last second.", seconds, **labels, work_class=row.work_class)


def standby_lags(status: admin_pb2.GetStatusResponse) -> dict[str, int]:
    """Return by how many records each standby is behind its primary."""
    records = {component.name: component.record for component in status.components}
    return {
        machine: max(records[machine] - record, 0)
        for name, record in records.items()
        if name.endswith("-standby") and (machine := name.removesuffix("-standby")) in records
    }
