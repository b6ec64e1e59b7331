"""How to do a run again: what it was, with what, and on what."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata

import msgspec

from chaos.experiment.model import Environment
from chaos.run.record import Manifest

_PACKAGES = ("evenkeel", "ray", "grpcio", "nats-py")


def manifest_of(
    name: str,
    seed: int,
    environment: Environment,
    *,
    begun_s: float,
    schedule_sha256: str,
    command: Sequence[str],
    target: str,
) -> Manifest:
    """Return the manifest of a run whose load begins at a time of CLOCK_MONOTONIC."""
    return Manifest(
        name=name,
        seed=seed,
        begun_utc=utc_of(begun_s),
        begun_monotonic_ns=int(begun_s * 1e9),
        versions=versions(),
        schedule_sha256=schedule_sha256,
        configuration_sha256=hashlib.sha256(msgspec.json.encode(environment, order="sorted")).hexdigest(),
        command=tuple(command),
        cores=os.cpu_count() or 0,
        target=target,
    )


def versions() -> dict[str, str]:
    """Return the versions of what a run depends on."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # It is not needed for what was done, then.
            continue
    return found


def utc_of(monotonic_s: float) -> str:
    """Return the wall clock's time of a moment on CLOCK_MONOTONIC: ISO 8601, in ms."""
    moment = datetime.fromtimestamp(time.time() + monotonic_s - time.monotonic(), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
