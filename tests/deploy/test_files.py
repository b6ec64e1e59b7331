"""The files for clusters say what the code says, and are accepted by those that read them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from exchange.config import ExchangeConfig
from exchange.ray_settings import CLUSTER_RAY_ENVIRONMENT
from exchange.runtime.journal.nats_settings import NatsSettings

CHECKOUT = Path(__file__).resolve().parents[2]


def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHECKOUT / "cluster.yaml").read_text())
    return loaded


def kubernetes() -> dict[tuple[str, str], dict[str, Any]]:
    documents = yaml.safe_load_all((CHECKOUT / "deploy" / "kuberay.yaml").read_text())
    return {(document["kind"], document["metadata"]["name"]): document for document in documents if document}


def words_of(command: str, program: str) -> list[str]:
    """Return the words of a command line from the program on."""
    return command[command.index(program) :].replace(";", " ").split()


def values_of(words: list[str], option: str) -> list[str]:
    return [words[number + 1] for number, word in enumerate(words) if word == option]


def check_exchange_up(command: str) -> list[str]:
    """Check that `exchange up` would take what follows it; return the NATS servers that it names."""
    words = words_of(command, "exchange up")
    servers = values_of(words, "--nats")
    settings = NatsSettings(servers=tuple(servers), monitoring_urls=tuple(values_of(words, "--nats-monitoring")))
    (nodes,), (gateways,), (journal,) = (values_of(words, f"--{name}") for name in ("nodes", "gateways", "journal"))
    config = ExchangeConfig(nodes=int(nodes), gateways=int(gateways), journal=journal, nats=settings)
    assert (config.nodes, config.gateways, config.journal, settings.copies) == (3, 3, "nats", 3)
    assert len(settings.monitoring_urls) == 3
    # Each gateway is on a machine of its own, and clients find all on one port.
    assert "--same-port" in words
    return servers


def test_ray_accepts_the_cluster_file() -> None:
    config = prepare_config(cluster())
    validate_config(config)
    (node_type,) = config["available_node_types"].values()
    assert (node_type["min_workers"], node_type["max_workers"]) == (2, 2)


def test_every_node_of_the_cluster_file_has_the_settings_of_the_code_and_its_name() -> None:
    config = cluster()
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = (command for command in commands if "ray start" in command)
        assert "export $(python -m exchange.ray_settings) EVENKEEL_NODE=$3 EVENKEEL_DATA_DIR=" in start
        assert "--labels=evenkeel.node=$3" in start


def test_the_settings_print_as_the_shell_takes_them() -> None:
    script = f'export $("{sys.executable}" -m exchange.ray_settings); env'
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert {f"{name}={value}" for name, value in CLUSTER_RAY_ENVIRONMENT.items()} <= set(done.stdout.splitlines())


def test_each_machine_of_the_cluster_file_has_a_server_of_the_journals() -> None:
    config = cluster()
    addresses = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = (command for command in commands if "start_nats.sh" in command)
        assert words_of(start, "start_nats.sh")[-3:] == addresses
    (up,) = (command for command in config["head_start_ray_commands"] if "exchange up" in command)
    assert check_exchange_up(up) == [f"nats://{address}:4222" for address in addresses]
    assert os.access(CHECKOUT / "deploy" / "start_nats.sh", os.X_OK)


@pytest.mark.parametrize("group", ["head", "worker"])
def test_every_pod_has_the_settings_of_the_code_the_token_and_a_name(group: str) -> None:
    spec = kubernetes()["RayCluster", "evenkeel"]["spec"]
    owner = spec["headGroupSpec"] if group == "head" else spec["workerGroupSpecs"][0]
    (container,) = owner["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert {name: environment[name] for name in CLUSTER_RAY_ENVIRONMENT} == CLUSTER_RAY_ENVIRONMENT
    (token,) = (entry for entry in container["env"] if entry["name"] == "RAY_AUTH_TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["name"] == "evenkeel-ray-token"
    assert owner["rayStartParams"]["labels"] == "evenkeel.node=$POD_NAME"
    assert environment["EVENKEEL_NODE"] == "$(POD_NAME)"
    (mount,) = container["volumeMounts"]
    assert environment["EVENKEEL_DATA_DIR"].startswith(mount["mountPath"] + "/")


def test_the_head_in_kubernetes_keeps_rays_tables_and_starts_the_exchange() -> None:
    documents = kubernetes()
    template = documents["RayCluster", "evenkeel"]["spec"]["headGroupSpec"]["template"]["spec"]
    (container,) = template["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["RAY_gcs_storage"] == "rocksdb"
    assert environment["RAY_gcs_storage_path"].startswith("/data/")
    (volume,) = template["volumes"]
    assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in documents
    command = container["lifecycle"]["postStart"]["exec"]["command"][-1]
    servers = documents["StatefulSet", "evenkeel-nats"]
    assert servers["spec"]["replicas"] == 3
    assert check_exchange_up(command) == [f"nats://evenkeel-nats-{n}.evenkeel-nats:4222" for n in range(3)]


def test_the_servers_of_the_journals_sync_each_record_everywhere() -> None:
    in_kubernetes = kubernetes()["ConfigMap", "evenkeel-nats"]["data"]["nats-server.conf"]
    for text in (in_kubernetes, (CHECKOUT / "deploy" / "nats-server.conf").read_text()):
        assert "sync_interval: always" in text
    (claim,) = kubernetes()["StatefulSet", "evenkeel-nats"]["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"


def test_in_kubernetes_clients_are_sent_to_the_port_on_which_every_gateway_listens() -> None:
    documents = kubernetes()
    cluster_spec = documents["RayCluster", "evenkeel"]["spec"]
    owners = [cluster_spec["headGroupSpec"], *cluster_spec["workerGroupSpecs"]]
    containers = [owner["template"]["spec"]["containers"][0] for owner in owners]
    (port,) = values_of(
        words_of(containers[0]["lifecycle"]["postStart"]["exec"]["command"][-1], "exchange up"), "--port"
    )
    (served,) = documents["Service", "evenkeel"]["spec"]["ports"]
    assert served["port"] == int(port)
    for container in containers:
        assert {"name": "grpc", "containerPort": int(port)} in container["ports"]
