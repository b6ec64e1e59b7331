"""A network of this machine's own: a bridge, and network namespaces on it, one for each node. As root, with `ip`.

A process in a namespace reaches the others, and this machine at the bridge, by their addresses alone, as if each were a
machine; so a link can be cut, and what was sent is lost as with a cable that was pulled: nobody is told.

Names hold the process id of the owner, and subnets are taken where there is none yet, so several networks live side by
side. What an owner leaves that was killed, the next network removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# For tests between network devices (RFC 2544), so that it is nobody's real network.
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
_DEVICE = "eth0"
_LOCK = Path("/run/evenkeel-netns.lock")
_NAMESPACES = Path("/run/netns")
_NAME = re.compile(r"ek(\d+)x\d+[bvn]\d*")
# To nobody's device: what is sent there is lost.
_NOBODY = "02:00:00:00:00:00"
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


class NetworkFailed(RuntimeError):
    """The network could not be made or changed; the message says by which command, and why."""

    code = "NETWORK_FAILED"


def missing() -> str:
    """Return what is missing to make one; "" if nothing."""
    if os.geteuid() != 0:
        return "expected root, which network namespaces need"
    lacking = [program for program in ("ip", "nsenter") if shutil.which(program) is None]
    if lacking:
        return f"expected {' and '.join(lacking)} on the PATH (Debian: iproute2, util-linux)"
    # In many containers root may not make any.
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"expected to be allowed to make network namespaces: {tried.stderr.strip()}" if tried.returncode else ""


class LocalNetwork:
    """A bridge with an address of this machine, and `count` namespaces with a link to it each."""

    def __init__(self, count: int) -> None:
        # A device's name may have 15 bytes.
        self._tag = f"ek{os.getpid()}x{next(_numbers)}"
        self._count = count
        self._subnet = _RANGE

    @property
    def host(self) -> str:
        """The address of this machine at the bridge: of whatever is in no namespace."""
        return str(self._subnet[1])

    def address(self, number: int) -> str:
        """The address of a namespace."""
        return str(self._subnet[2 + number])

    def make(self) -> None:
        """Make it, and remove what is left of others. Raises `NetworkFailed`."""
        if reason := missing():
            raise NetworkFailed(f"no network of our own: {reason}")
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_abandoned()
            self._subnet = _free_subnet()
            bridge = f"{self._tag}b"
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"{self.host}/{self._subnet.prefixlen}", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number in range(self._count):
            name, link = self._namespace(number), self._link(number)
            _ip("netns", "add", name)
            _ip("link", "add", link, "type", "veth", "peer", "name", _DEVICE, "netns", name)
            _ip("link", "set", link, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{self.address(number)}/{self._subnet.prefixlen}", "dev", _DEVICE)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", _DEVICE, "up")

    def remove(self) -> None:
        """Remove all of it. Doing it twice is allowed."""
        for name in _names():
            if name.startswith(f"{self._tag}"):
                _remove(name)

    def entering(self, number: int) -> list[str]:
        """Return what to put before a command so that it runs in a namespace."""
        return ["nsenter", f"--net={_NAMESPACES / self._namespace(number)}"]

    @contextlib.contextmanager
    def inside(self, number: int) -> Iterator[None]:
        """Have this thread, and threads that it starts, in a namespace; other threads stay where they are."""
        with Path("/proc/thread-self/ns/net").open() as before:
            with (_NAMESPACES / self._namespace(number)).open() as inside:
                _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def cut(self, number: int) -> None:
        """Cut a namespace off from everybody, both ways."""
        _ip("link", "set", self._link(number), "down")

    def cut_way(self, sender: int, receiver: int) -> None:
        """Lose what one namespace sends to another; what comes back still arrives."""
        where = (self.address(receiver), "lladdr", _NOBODY, "dev", _DEVICE, "nud", "permanent")
        _ip("-n", self._namespace(sender), "neigh", "replace", *where)

    def cut_ports(self, number: int, ports: Iterable[int]) -> None:
        """Lose what a namespace sends to some TCP ports of this machine; what comes from there still arrives."""
        for port in ports:
            _ip("-n", self._namespace(number), "rule", "add", *self._to_port(port))

    def heal(self, number: int) -> None:
        """Put back all links of a namespace, both ways."""
        _ip("link", "set", self._link(number), "up")
        for rule in _ip_json("-n", self._namespace(number), "rule", "show"):
            if "dport" in rule:
                _ip("-n", self._namespace(number), "rule", "del", *self._to_port(int(rule["dport"])))
        for other in range(self._count):
            if other != number:
                self._heal_way(number, other)
                self._heal_way(other, number)

    def _to_port(self, port: int) -> tuple[str, ...]:
        return ("to", self.host, "ipproto", "tcp", "dport", str(port), "blackhole")

    def _heal_way(self, sender: int, receiver: int) -> None:
        namespace, address = self._namespace(sender), self.address(receiver)
        if _NOBODY in _ip("-n", namespace, "neigh", "show", address, "dev", _DEVICE):
            _ip("-n", namespace, "neigh", "del", address, "dev", _DEVICE)

    def _namespace(self, number: int) -> str:
        return f"{self._tag}n{number}"

    def _link(self, number: int) -> str:
        return f"{self._tag}v{number}"


def remove_abandoned() -> None:
    """Remove what owners left that are gone."""
    for name in _names():
        found = _NAME.fullmatch(name)
        if found and not Path(f"/proc/{found[1]}").exists():
            _remove(name)


def _names() -> list[str]:
    """Return the names of all devices and namespaces that are some network's: namespaces last."""
    devices = [str(device["ifname"]) for device in _ip_json("link", "show")]
    namespaces = sorted(path.name for path in _NAMESPACES.iterdir()) if _NAMESPACES.exists() else []
    return [name for name in [*devices, *namespaces] if _NAME.fullmatch(name)]


def _remove(name: str) -> None:
    kind = "netns" if (_NAMESPACES / name).exists() else "link"
    # Two may do it at once, and with a namespace its end of a link goes, and so the other one.
    with contextlib.suppress(NetworkFailed):
        _ip(kind, "del", name)


def _free_subnet() -> ipaddress.IPv4Network:
    routes = (str(route["dst"]) for route in _ip_json("-4", "route", "show", "table", "all"))
    taken = [ipaddress.IPv4Network(route) for route in routes if route != "default"]
    for subnet in _RANGE.subnets(new_prefix=24):
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise NetworkFailed(f"expected a subnet of {_RANGE} that is free, found none: `ip -4 route` shows whose they are")


def _ip_json(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_ip("-json", *arguments) or "[]")
    return found


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkFailed(f"`ip {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise NetworkFailed(f"could not enter a network namespace: {os.strerror(ctypes.get_errno())}")
