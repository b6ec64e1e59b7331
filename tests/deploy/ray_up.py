"""`ray up cluster.yaml` end to end: what `test_ray_up.py` runs in namespaces of its own.

In here no address is taken, and nothing outlives the first process. The machines are three loopback addresses, each
with a sshd that has its own processes (`ray stop` would end any other Ray) and its own home directory for root. There
is no network, so instead of `make install` the environment of this machine is used.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from exchange.client import Client, OrderStatus, Side
from exchange.processes import Process, read_process
from tests.cluster.money import open_market, open_rich_account

CHECKOUT = Path(__file__).resolve().parents[2]
ADDRESSES = {"10.0.0.11": "127.0.0.11", "10.0.0.12": "127.0.0.12", "10.0.0.13": "127.0.0.13"}
HEAD, *WORKERS = ADDRESSES.values()
END_LIMIT_S = 60.0
# What `ray down` leaves: the ways in, and the journals.
STAYS = ("unshare", "sshd", "nats-server")
OWN_PROCESSES = ("unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child")
SSHD_CONFIG = """
ListenAddress {address}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/key.pub
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
MaxSessions 100
MaxStartups 100
"""


def main(directory: Path) -> None:
    key = start_machines(directory)
    rendered = render(directory, key)
    environment = {**os.environ, "HOME": str(directory), "RAY_TMPDIR": str(directory)}
    ray = str(Path(sys.executable).with_name("ray"))

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)

    run(ray, "up", "-y", "--no-config-cache", str(rendered))
    trade(directory)
    run(ray, "exec", str(rendered), f"exchange down --ray-address {HEAD}:6379 --workers")
    run(ray, "down", "-y", str(rendered))
    give_up_s = time.monotonic() + END_LIMIT_S
    while left := [process for process in processes() if process.program.rstrip(":") not in STAYS]:
        # Connections that `ray` shares between its calls of ssh go by themselves.
        assert time.monotonic() < give_up_s, left
        time.sleep(0.5)
    sys.stdout.write("nothing left running\n")


def start_machines(directory: Path) -> Path:
    """Make three addresses answer as machines; return the key that lets one in."""
    key = directory / "key"
    for path in (directory / "host_key", key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    for command in ("mount -t tmpfs tmpfs /run", "mkdir -p /run/sshd", "ip link set lo up"):
        subprocess.run(command.split(), check=True)
    passwd = Path("/etc/passwd").read_text().splitlines()
    for address in ADDRESSES.values():
        home = directory / address
        home.mkdir()
        own_passwd, config = home / "passwd", home / "sshd_config"
        root = f"root:x:0:0:root:{home}:/bin/bash"
        own_passwd.write_text("\n".join(root if line.startswith("root:") else line for line in passwd) + "\n")
        config.write_text(SSHD_CONFIG.format(directory=directory, address=address))
        start = f"mount --bind {own_passwd} /etc/passwd && exec /usr/sbin/sshd -D -f {config} -E {home}/sshd.log"
        subprocess.Popen([*OWN_PROCESSES, "sh", "-c", start])
    return key


def render(directory: Path, key: Path) -> Path:
    """Return `cluster.yaml` as somebody would edit it for these machines."""
    text = (CHECKOUT / "cluster.yaml").read_text()
    for placeholder, address in ADDRESSES.items():
        text = text.replace(placeholder, address)
    config = yaml.safe_load(text)
    token = directory / "token"
    token.write_text("a-token-that-is-the-same-everywhere")
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    config["file_mounts"] = {"~/evenkeel/source": str(CHECKOUT), "~/.ray/auth_token": str(token)}
    path = f"{Path(sys.executable).parent}:$PATH"
    variables = f"PATH={path} PYTHONPATH=~/evenkeel/source RAY_TMPDIR=~/tmp"
    config["setup_commands"] = [f"mkdir -p ~/tmp; echo 'export {variables}' > ~/.bashrc"]
    # These machines share their ports.
    starts = config["head_start_ray_commands"]
    config["head_start_ray_commands"] = [command.replace(" --same-port", "") for command in starts]
    rendered = directory / "cluster.yaml"
    rendered.write_text(yaml.safe_dump(config))
    return rendered


def trade(directory: Path) -> None:
    """Trade one order, through the gateway on the head."""
    address = f"{HEAD}:7700"
    (key_file,) = directory.glob("*/evenkeel/data/operator.key")
    key = key_file.read_text().strip()
    with Client(address, key, timeout=10) as operator:
        open_market(operator, "BTC-USDT")
        _, maker_key = open_rich_account(operator, "maker")
        _, taker_key = open_rich_account(operator, "taker")
    with Client(address, maker_key, timeout=10) as maker, Client(address, taker_key, timeout=10) as taker:
        maker.place_order("BTC-USDT", Side.SELL, "1", "60000")
        order = taker.place_order("BTC-USDT", Side.BUY, "1", "60000")
    assert order.status is OrderStatus.FILLED, order
    sys.stdout.write("traded\n")


def processes() -> list[Process]:
    found = (read_process(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [process for process in found if process and process.state != "Z" and process.pid != os.getpid()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
