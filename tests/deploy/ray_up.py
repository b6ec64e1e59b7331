"""`ray up cluster.yaml` end to end: what `test_ray_up.py` runs in namespaces of its own.

In here no address is taken, and nothing outlives the first process. The machines are three loopback addresses with a
sshd each, which sees only its own processes: `ray stop` would end any other Ray. They share a home directory that is not
the real one. There is no network, so instead of `make install` the environment of this machine is used.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from exchange.client import Client, Side
from exchange.processes import Process, read_process
from tests.cluster.money import open_market, open_rich_account

CHECKOUT = Path(__file__).resolve().parents[2]
ADDRESSES = {"10.0.0.11": "127.0.0.11", "10.0.0.12": "127.0.0.12", "10.0.0.13": "127.0.0.13"}
HEAD, *WORKERS = ADDRESSES.values()
# What `ray down` leaves: the ways in, and the journals.
STAYS = ("unshare", "sshd", "nats-server")
SSHD_CONFIG = """
ListenAddress {address}
HostKey {home}/host_key
AuthorizedKeysFile {home}/.ssh/id_ed25519.pub
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
MaxSessions 100
MaxStartups 100
"""


def main(directory: Path) -> None:
    home = directory / "home"
    start_machines(home)
    rendered = render(home)
    environment = {**os.environ, "HOME": str(home), "RAY_TMPDIR": str(directory / "tmp")}
    ray = str(Path(sys.executable).with_name("ray"))

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)

    run(ray, "up", "-y", "--no-config-cache", str(rendered))
    trade(home / "evenkeel" / "data")
    run(ray, "exec", str(rendered), f"exchange down --ray-address {HEAD}:6379 --workers")
    run(ray, "down", "-y", str(rendered))
    left = [process for process in processes() if process.program.rstrip(":") not in STAYS]
    assert not left, left
    sys.stdout.write("nothing left running\n")


def start_machines(home: Path) -> None:
    """Make three addresses answer as machines: keys, a home directory, and a sshd."""
    (home / ".ssh").mkdir(parents=True)
    Path(home / ".bashrc").write_text("")
    for key in (home / "host_key", home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    passwd = home / "passwd"
    lines = Path("/etc/passwd").read_text().splitlines()
    passwd.write_text("\n".join(f"root:x:0:0:root:{home}:/bin/bash" if x.startswith("root:") else x for x in lines))
    for command in (
        f"mount --bind {passwd} /etc/passwd",
        "mount -t tmpfs tmpfs /run",
        "mkdir -p /run/sshd",
        "ip link set lo up",
    ):
        subprocess.run(command.split(), check=True)
    for address in ADDRESSES.values():
        config = home / f"sshd_config.{address}"
        config.write_text(SSHD_CONFIG.format(home=home, address=address))
        # Processes of its own, so that `ray stop` finds no others.
        command = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "/usr/sbin/sshd", "-D"]
        subprocess.Popen([*command, "-f", str(config), "-E", f"{config}.log"])


def render(home: Path) -> Path:
    """Return `cluster.yaml` as somebody would edit it for these machines."""
    text = (CHECKOUT / "cluster.yaml").read_text()
    for placeholder, address in ADDRESSES.items():
        text = text.replace(placeholder, address)
    config = yaml.safe_load(text)
    token = home / "token"
    token.write_text("a-token-that-is-the-same-everywhere")
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(home / ".ssh" / "id_ed25519")}
    config["file_mounts"] = {"~/evenkeel/source": str(CHECKOUT), "~/.ray/auth_token": str(token)}
    path = f"{Path(sys.executable).parent}:$PATH"
    variables = f"PATH={path} PYTHONPATH=~/evenkeel/source RAY_TMPDIR={home.parent}/tmp"
    config["setup_commands"] = [f"echo 'export {variables}' > ~/.bashrc"]
    rendered = home / "cluster.yaml"
    rendered.write_text(yaml.safe_dump(config))
    return rendered


def trade(data: Path) -> None:
    """Trade one order, through the gateway on the head."""
    address = f"{HEAD}:7700"
    key = (data / "operator.key").read_text().strip()
    with Client(address, key, timeout=10) as operator:
        open_market(operator, "BTC-USDT")
        _, maker_key = open_rich_account(operator, "maker")
        _, taker_key = open_rich_account(operator, "taker")
    with Client(address, maker_key, timeout=10) as maker, Client(address, taker_key, timeout=10) as taker:
        maker.place_order("BTC-USDT", Side.SELL, "1", "60000")
        order = taker.place_order("BTC-USDT", Side.BUY, "1", "60000")
    assert str(order.status).endswith("FILLED"), order
    sys.stdout.write("traded\n")


def processes() -> list[Process]:
    found = (read_process(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [process for process in found if process and process.state != "Z" and process.pid != os.getpid()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
