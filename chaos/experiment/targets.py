"""What there is in an experiment that a fault can be done to."""

from __future__ import annotations

from chaos.experiment.model import Experiment

STANDBY = "-standby"
NATS_SERVERS = 3
ROLES = ("shard", "standby", "gateway", "ledger", "supervisor", "auditor", "raylet", "nats", "node")
WHOLE = ("exchange", "all", "everybody")


def targets_of(experiment: Experiment) -> list[str]:
    """Return the names of all components, nodes and servers, the roles, markets, populations and links."""
    environment = experiment.environment
    shards = [f"shard-{number}" for number in range(environment.shards)]
    gateways = [f"gateway-{number}" for number in range(environment.gateways)]
    machines = ["ledger", *shards]
    standbys = [f"{machine}{STANDBY}" for machine in machines] if environment.standbys else []
    nodes = [f"node-{number}" for number in range(environment.nodes)] if environment.nodes > 1 else []
    servers = [f"nats-{number}" for number in range(NATS_SERVERS)] if environment.journal == "nats" else []
    beside = ["status"] if environment.status_page else []
    links = [f"{gateway}:{machine}" for gateway in gateways for machine in machines]
    markets = [market.symbol for market in environment.markets]
    populations = [population.name for population in experiment.load]
    named = (*machines, *standbys, *gateways, *nodes, *servers, *beside, "gcs", *markets, *populations, *links)
    return list(dict.fromkeys((*named, *ROLES, *WHOLE)))
