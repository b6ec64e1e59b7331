"""`ray up cluster.yaml` on machines that are loopback addresses: up, an order, down, and nothing left. As root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
UNSHARE = ["unshare", "--pid", "--net", "--mount", "--fork", "--kill-child", "--mount-proc"]
NEEDED = {
    "/usr/sbin/sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
    "ip": "iproute2",
}


def missing() -> str:
    """Return what this machine lacks, as a reason to skip; "" if nothing."""
    packages = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if packages:
        return f"expected the Debian packages {', '.join(packages)}, which are not installed"
    if os.geteuid() != 0 or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode != 0:
        return "expected to be root and allowed to make namespaces: `ray stop` would end other Rays of this machine"
    return ""


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_cluster_comes_up_trades_and_leaves_nothing() -> None:
    # Short, because Ray puts sockets below it.
    with tempfile.TemporaryDirectory(prefix="evenkeel-") as directory:
        done = subprocess.run(
            [*UNSHARE, sys.executable, "-m", "tests.deploy.ray_up", directory],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6_000:]
    assert done.stdout.splitlines()[-1] == "nothing left running"
