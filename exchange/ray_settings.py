"""How Ray is set wherever the exchange runs on it: on this machine, in `cluster.yaml` and in `deploy/`."""

from __future__ import annotations

# For every node and every driver alike. `tests/test_deploy.py` compares the files for clusters with it.
RAY_ENVIRONMENT = {
    # Ray's own timers, so that a call to a process that died fails in 0.1 s instead of 2 s.
    "RAY_timeout_ms_task_wait_for_death_info": "50",
    "RAY_core_worker_internal_heartbeat_ms": "50",
    # And so that Ray itself counts a node as dead after 3 s instead of 15. The supervisor does not wait for that.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # How long a node waits for a GCS that is away, rather than end with everything on it: an hour, not a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
    # What a call carries up to here goes with it, rather than through the object store, which costs a millisecond. The
    # largest are a batch of a link and what a reader of a feed gets at once.
    "RAY_max_direct_call_object_size": "2097152",
    # Ray would run its workers at niceness 15: a shard would have to wait for anything else that the machine does.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# One machine, its own session: a token would be shared with nobody.
LOCAL_RAY_ENVIRONMENT = RAY_ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}

# Several machines: whoever connects has to show the token, which is the same one everywhere.
CLUSTER_RAY_ENVIRONMENT = RAY_ENVIRONMENT | {"RAY_AUTH_MODE": "token"}

NODE_LABEL = "evenkeel.node"
"""The label of a Ray node that holds its name."""


def main() -> None:
    """Print the environment of a cluster's nodes, for the shell: `export $(python -m exchange.ray_settings)`."""
    print(" ".join(f"{name}={value}" for name, value in CLUSTER_RAY_ENVIRONMENT.items()))


if __name__ == "__main__":
    main()
