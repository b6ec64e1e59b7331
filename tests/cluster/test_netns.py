"""A network of our own: whose links are cut, and what is left of it."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exchange.netns import LocalNetwork, NetworkFailed, missing

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.skipif(bool(missing()), reason=missing())]
LIMIT_S = 30.0
HOST = 3
"""Who is on this machine's side of the bridge, after the namespaces 0 to 2."""
# Reads lines: "ROUND ADDRESS" sends there; "ROUND" tells from whom something of that round has come.
PEER = """
import socket, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.bind((sys.argv[1], 700))
heard = {}
print("ready", flush=True)
for line in sys.stdin:
    round, *address = line.split()
    if address:
        peer.sendto(round.encode(), (*address, 700))
    try:
        while True:
            said, sender = peer.recvfrom(10, socket.MSG_DONTWAIT)
            heard.setdefault(said.decode(), set()).add(sender[0])
    except BlockingIOError:
        print(*heard.get(round, ()), flush=True)
"""
rounds = itertools.count()


class Peer:
    """A process that sends messages to others and hears theirs."""

    def __init__(self, before: list[str], address: str) -> None:
        command = [*before, sys.executable, "-c", PEER, address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = address
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()


@pytest.fixture
def network() -> Iterator[LocalNetwork]:
    network = LocalNetwork(HOST)
    try:
        network.make()
        yield network
    finally:
        network.remove()


@pytest.fixture
def peers(network: LocalNetwork) -> Iterator[list[Peer]]:
    peers = [Peer(network.entering(number), network.address(number)) for number in range(HOST)]
    peers.append(Peer([], network.host))
    yield peers
    for peer in peers:
        peer.process.kill()
        peer.process.communicate()


def expect_lost(peers: list[Peer], *lost: tuple[int, int]) -> None:
    """Have everybody send to everybody: what goes these ways (from, to) is lost, all else comes."""
    ways = [(sender, receiver) for sender in range(4) for receiver in range(4) if sender != receiver]
    # Apart, because something of an earlier round may still come: it had waited for an address.
    round_ = next(rounds)
    # Those first that must not come, so that one that does is there before the others.
    for sender, receiver in lost:
        peers[sender].ask(f"{round_} {peers[receiver].address}")
    give_up_s = time.monotonic() + LIMIT_S
    while True:
        # A link that is up again needs up to a second, and loses what it gets meanwhile.
        for sender, receiver in ways:
            if (sender, receiver) not in lost:
                peers[sender].ask(f"{round_} {peers[receiver].address}")
        heard = {number: set(peer.ask(str(round_)).split()) for number, peer in enumerate(peers)}
        arrived = [(s, receiver) for s, receiver in ways if peers[s].address in heard[receiver]]
        assert not set(arrived) & set(lost)
        if set(arrived) | set(lost) == set(ways):
            return
        assert time.monotonic() < give_up_s, f"only {arrived} of {ways} without {lost}"
        time.sleep(0.05)


def test_links_are_cut_and_healed(network: LocalNetwork, peers: list[Peer]) -> None:
    expect_lost(peers)
    network.cut(1)
    expect_lost(peers, *((1, other) for other in (0, 2, HOST)), *((other, 1) for other in (0, 2, HOST)))
    network.heal(1)
    expect_lost(peers)
    network.cut_way(1, 2)
    expect_lost(peers, (1, 2))
    network.cut_way(2, 1)
    expect_lost(peers, (1, 2), (2, 1))
    network.heal(1)
    expect_lost(peers)


def test_networks_live_side_by_side_and_leave_nothing(network: LocalNetwork) -> None:
    other = LocalNetwork(1)
    other.make()
    assert other.host != network.host
    peer = Peer(other.entering(0), other.address(0))
    other.remove()
    other.remove()
    with pytest.raises(NetworkFailed, match="ended with"):
        other.cut(0)
    assert not left(f"{other.host}/")
    peer.process.kill()
    peer.process.communicate()
    # The first one is still there.
    network.cut(0)


def test_what_an_owner_left_that_was_killed_the_next_one_removes() -> None:
    code = (
        "import sys; from exchange.netns import LocalNetwork\n"
        "network = LocalNetwork(2); network.make(); print(network.host, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        names = left(f"ek{owner.pid}x")
        assert len(names) == 5
        owner.send_signal(signal.SIGKILL)
    assert left(f"ek{owner.pid}x") == names
    network = LocalNetwork(1)
    network.make()
    network.remove()
    assert not left(f"ek{owner.pid}x")


def left(*beginnings: str) -> set[str]:
    """Return the devices and namespaces there are whose names, or addresses, begin so."""
    links = subprocess.run(["ip", "-brief", "addr"], capture_output=True, text=True, check=True).stdout
    words = {word.partition("@")[0] for line in links.splitlines() for word in line.split()}
    namespaces = {path.name for path in Path("/run/netns").iterdir()}
    return {word for word in words | namespaces if word.startswith(beginnings)}


def test_a_port_of_this_machine_is_cut_off_for_one_namespace_and_is_back(network: LocalNetwork) -> None:
    with socket.socket() as server, socket.socket() as other:
        for listening in (server, other):
            listening.bind((network.host, 0))
            listening.listen()
        cut, left = server.getsockname()[1], other.getsockname()[1]

        def reached(number: int) -> list[int]:
            with network.inside(number):
                return [port for port in (cut, left) if _reaches(network.host, port)]

        network.cut_ports(0, [cut])
        assert reached(0) == [left]
        assert reached(1) == [cut, left]
        network.heal(0)
        assert reached(0) == [cut, left]


def _reaches(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(LIMIT_S)
        return probe.connect_ex((host, port)) == 0
