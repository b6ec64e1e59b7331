"""Whether the servers keep what they acknowledge: their version, the stream's settings, syncing to disk."""

from __future__ import annotations

import json
import re
import ssl
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import structlog

from exchange.runtime.journal.interface import JournalUnsafe
from exchange.runtime.journal.nats_link import NatsLink
from exchange.runtime.journal.nats_settings import NatsSettings

VERSION_MIN = (2, 12)
"""Older ones do not know all headers that a record is sent with."""
MONITORING_TIMEOUT_S = 2.0
_HOW_TO_SYNC = (
    "set `sync_interval: always` in the `jetstream { … }` block of each server's configuration and restart the servers "
    "one by one"
)

_log = structlog.get_logger()


class Sync(Enum):
    """What a server's monitoring said."""

    ALWAYS = "syncs each record"
    LAZY = "acknowledges before it syncs"
    UNKNOWN = "did not say"


@dataclass(frozen=True, slots=True)
class ServerSync:
    """One server's answer; `server` is its name, or the address where it did not answer."""

    server: str
    sync: Sync
    detail: str = ""


def prepare_stream(link: NatsLink, stream: str, subjects: tuple[str, str], copies: int) -> list[str]:
    """Make the stream if it is missing; return the names of the servers that hold it.

    Raises `JournalUnsafe` if there is one that would lose records, or the server that answers is too old.
    """
    _check_version(link.server_name, link.server_version)
    config: dict[str, Any] = {
        "subjects": list(subjects),
        "retention": "limits",
        "storage": "file",
        "num_replicas": copies,
        "discard": "new",
        "allow_direct": True,
        "deny_delete": True,
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
    }
    info = link.stream_info() or link.create_stream(config)
    found = info["config"]
    for name, expected in config.items():
        was = found.get(name)
        is_met = was >= expected if name == "num_replicas" else was == expected
        if not is_met:
            raise JournalUnsafe(
                f"stream {stream}: expected {name} {expected!r}, was {was!r}: change it (`nats stream edit`), or name "
                "another prefix"
            )
    cluster = info.get("cluster") or {}
    names = [cluster.get("leader"), *(replica.get("name") for replica in cluster.get("replicas") or [])]
    return [name for name in names if name] or [link.server_name]


def check_sync(settings: NatsSettings, servers: list[str]) -> None:
    """Raise `JournalUnsafe` unless a majority of `servers` is proven to sync each record, and none is known not to.

    A majority, so that the journal can be opened while a server is away.
    """
    with ThreadPoolExecutor(max(len(settings.monitoring_urls), 1), thread_name_prefix="nats-monitoring") as pool:
        answers = list(pool.map(lambda url: _ask(url, settings), settings.monitoring_urls))
    for answer in answers:
        if answer.sync is Sync.LAZY:
            raise JournalUnsafe(
                f"NATS server {answer.server} acknowledges records before they are on its disk ({answer.detail}): "
                f"{_HOW_TO_SYNC}"
            )
    proven = {answer.server for answer in answers if answer.sync is Sync.ALWAYS}
    needed = len(servers) // 2 + 1
    if len(proven.intersection(servers)) >= needed:
        return
    unproven = sorted(set(servers) - proven)
    if settings.trust_sync:
        _log.warning("journal.sync_trusted", servers=unproven)
        return
    details = "; ".join(f"{x.server}: {x.detail}" for x in answers if x.sync is Sync.UNKNOWN)
    raise JournalUnsafe(
        f"expected proof that {needed} of the NATS servers {', '.join(servers)} sync each record, found none for "
        f"{', '.join(unproven)}{' (' + details + ')' if details else ''}: {_HOW_TO_SYNC}, turn their monitoring on "
        "(`http: …`) and name it in monitoring_urls; or set trust_sync if that is made sure of elsewhere"
    )


def _ask(url: str, settings: NatsSettings) -> ServerSync:
    context = None
    if urlsplit(url).scheme == "https":
        context = settings.tls() or ssl.create_default_context()
    try:
        with urllib.request.urlopen(
            f"{url.rstrip('/')}/varz", timeout=MONITORING_TIMEOUT_S, context=context
        ) as response:
            answer = json.load(response)
        config = (answer.get("jetstream") or {}).get("config") or {}
        server = str(answer["server_name"])
        version = str(answer["version"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return ServerSync(url, Sync.UNKNOWN, f"{type(error).__name__}: {error}")
    _check_version(server, version)
    if not config:
        return ServerSync(server, Sync.UNKNOWN, "its JetStream is off")
    if config.get("sync_always") is True:
        return ServerSync(server, Sync.ALWAYS)
    return ServerSync(server, Sync.LAZY, f"sync_interval is {int(config.get('sync_interval', 0)) / 1e9:g} s")


def _check_version(server: str, version: str) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < VERSION_MIN:
        expected = ".".join(map(str, VERSION_MIN))
        raise JournalUnsafe(f"NATS server {server}: expected version {expected} or newer, was {version}: upgrade it")
