"""How the servers of the `nats` journal are reached. Frozen, so that it can be sent to every process."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_SERVER_SCHEMES = ("nats", "tls")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """A cluster of NATS servers with JetStream, and who we are to it.

    Secrets are not in the `repr`. Raises `ValueError`, which never shows one either.
    """

    servers: tuple[str, ...]
    """`nats://host:port` or `tls://host:port` of every server, so that another is found when one is lost."""
    replicas: int | None = None
    """Of each record. None: 3, or 1 where only one server is listed."""
    prefix: str = "j"
    """Of the names of streams and subjects, so that several exchanges can share the servers."""
    monitoring_urls: tuple[str, ...] = ()
    """`http://host:port` of every server's monitoring, which tells whether it syncs each record to its disk."""
    trust_sync: bool = False
    """Go on where the monitoring cannot be asked: somebody else makes sure of `sync_interval: always`."""
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    # A server that accepts a connection at all does so in milliseconds.
    connect_timeout_s: float = 2.0
    # Longer than a sync on a busy disk takes; what is sent again meanwhile does no harm.
    try_timeout_s: float = 2.0
    # An election takes 5 to 7 s (measured), at most 9 s (by the servers' source).
    append_limit_s: float = 9.0

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError("servers: expected at least one nats://host:port, was none")
        for number, server in enumerate(self.servers):
            url = urlsplit(server)
            if url.username is not None or url.password is not None:
                raise ValueError(f"servers[{number}]: expected no credentials in the address: set user and password")
            if url.scheme not in _SERVER_SCHEMES or not url.hostname or _port(server) is None:
                raise ValueError(f"servers[{number}]: expected nats://host:port or tls://host:port, was {server!r}")
        for number, address in enumerate(self.monitoring_urls):
            url = urlsplit(address)
            if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
                raise ValueError(f"monitoring_urls[{number}]: expected http://host:port, without credentials")
        if self.replicas is None and len(self.servers) == 2:
            raise ValueError("servers: expected one, or three or more for three copies of each record, was 2")
        if self.replicas is not None and self.replicas not in (1, 3, 5):
            raise ValueError(f"replicas: expected 1, 3 or 5, was {self.replicas}")
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"prefix: expected 1 to 32 of letters, digits, _ and -, was {self.prefix!r}")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file: expected both or neither, was one")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password: expected both or neither, was one")
        ways = [self.user, self.token, self.credentials_file]
        if sum(way is not None for way in ways) > 1:
            raise ValueError("expected one of user, token and credentials_file, was more")
        for name in ("connect_timeout_s", "try_timeout_s", "append_limit_s"):
            value = getattr(self, name)
            if not 0.05 <= value <= 600:
                raise ValueError(f"{name}: expected 0.05 to 600, was {value}")

    @property
    def copies(self) -> int:
        """How many servers keep each record."""
        return self.replicas or (1 if len(self.servers) == 1 else 3)

    def check_files(self) -> None:
        """Raise `FileNotFoundError` if one that is named is not there."""
        for name in ("ca_file", "certificate_file", "key_file", "credentials_file"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"{name}: expected a file at {path}, found none")

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context; None if nothing asks for TLS. Raises `OSError` for a file that is not as expected."""
        if self.ca_file is None and not any(server.startswith("tls") for server in self.servers):
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def _port(address: str) -> int | None:
    try:
        return urlsplit(address).port
    except ValueError:
        return None
