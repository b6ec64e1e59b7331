"""The options of `exchange up` that say how the servers of the journals are reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from exchange.runtime.journal.nats_settings import NatsSettings

Servers = Annotated[
    list[str] | None,
    typer.Option(help="nats://HOST:PORT, or tls://, of a server of the journals; once for each of them."),
]
Monitoring = Annotated[
    list[str] | None, typer.Option(help="http://HOST:PORT of a server's monitoring; once for each of them.")
]
Credentials = Annotated[Path | None, typer.Option(help="File with the credentials for these servers.")]
CaFile = Annotated[
    Path | None, typer.Option("--nats-ca", help="File with the certificates that sign the servers': asks for TLS.")
]
CertificateFile = Annotated[
    Path | None, typer.Option("--nats-certificate", help="File with our certificate, for servers that ask for one.")
]
KeyFile = Annotated[Path | None, typer.Option("--nats-key", help="File with the key of our certificate.")]


def settings_of(
    journal: str,
    servers: Sequence[str] | None,
    monitoring: Sequence[str] | None,
    *,
    credentials: Path | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
) -> NatsSettings | None:
    """Return how the servers are reached, None without `--nats`. Raises `typer.BadParameter`.

    The files are read by each process of the exchange, so on each of its machines they are at the same place.
    """
    from exchange.runtime.journal.nats_settings import NatsSettings

    if not servers:
        others = {
            "--nats-monitoring": monitoring,
            "--nats-credentials": credentials,
            "--nats-ca": ca,
            "--nats-certificate": certificate,
            "--nats-key": key,
        }
        for option, value in others.items():
            if value:
                raise typer.BadParameter(f"expected --nats with {option}, found none: it is about servers of your own")
        return None
    if journal != "nats":
        raise typer.BadParameter(f"expected --journal nats with --nats, was {journal}")
    if (certificate is None) != (key is None):
        raise typer.BadParameter("expected both or neither of --nats-certificate and --nats-key, was one")
    try:
        return NatsSettings(
            servers=tuple(servers),
            monitoring_urls=tuple(monitoring or ()),
            credentials_file=_absolute(credentials),
            ca_file=_absolute(ca),
            certificate_file=_absolute(certificate),
            key_file=_absolute(key),
        )
    except ValueError as error:
        raise typer.BadParameter(f"--nats: {error}") from error


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
