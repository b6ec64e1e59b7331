"""Which exchanges an experiment may be attached to: those of this machine, and those that somebody says are theirs."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

LOCALHOST = "localhost"


class TargetRefused(ValueError):
    """A target is not of this machine, and nobody has said by its exact name that it is theirs."""

    code = "TARGET_REFUSED"


class TargetUnreachable(RuntimeError):
    """Nobody answers at a target, or it does not let us in; the message says what was heard."""

    code = "TARGET_UNREACHABLE"


def check_targets(addresses: Sequence[str], owned: Sequence[str]) -> None:
    """Check every address, "HOST:PORT". Raises `TargetRefused`."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise TargetRefused(f"expected HOST:PORT of a gateway, was {address!r}")
        if not is_loopback(host) and address not in owned:
            raise TargetRefused(
                f"expected an exchange of this machine, was {address}: an experiment does harm to what it is attached"
                f" to; if it is yours to harm, say so: --i-own-this-target {address}"
            )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine. Names other than localhost are not looked up: they may mean another one later."""
    if host.lower() == LOCALHOST:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
