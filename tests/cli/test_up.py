"""What `exchange up` is told about the servers of the journals, and that they are reached so."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from exchange.cli import up
from exchange.cli.app import app
from exchange.config import ExchangeConfig
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.nats_servers import NatsServers
from tests.runtime.certificates import make_certificates, tls_of_server

SERVER = ("--journal", "nats", "--nats", "tls://10.0.0.1:4222")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ExchangeConfig]:
    """Return what would be served."""
    configs: list[ExchangeConfig] = []
    monkeypatch.setattr(up, "serve", configs.append)
    return configs


def test_a_server_with_tls_is_reached_with_the_files_that_are_named(
    served: list[ExchangeConfig], tmp_path: Path
) -> None:
    files = make_certificates(tmp_path)
    with NatsServers.start(tmp_path / "nats", servers=1, configuration=tls_of_server(files)) as servers:
        words = ["up", "--journal", "nats", "--nats", servers.urls[0].replace("nats:", "tls:")]
        words += ["--nats-monitoring", servers.monitoring_urls[0], "--nats-ca", str(files / "ca.pem")]
        words += ["--nats-certificate", str(files / "node.pem"), "--nats-key", str(files / "node.key")]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
        settings = served[0].nats
        assert settings is not None
        journal = NatsJournal.open(settings, "shard-0")
        journal.append(journal.acquire(), 1, b"secret")
        assert [record.payload for record in journal.read(1)] == [b"secret"]
        journal.close()


def test_files_are_found_wherever_the_processes_run(
    served: list[ExchangeConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["up", *SERVER, "--nats-ca", "ca.pem", "--nats-certificate", "a.pem", "--nats-key", "a.key"]
    assert CliRunner().invoke(app, [*words, "--nats-credentials", "a.creds"], catch_exceptions=False).exit_code == 0
    settings = served[0].nats
    assert settings is not None
    assert settings.ca_file == tmp_path / "ca.pem"
    assert settings.certificate_file == tmp_path / "a.pem"
    assert settings.key_file == tmp_path / "a.key"
    assert settings.credentials_file == tmp_path / "a.creds"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*SERVER, "--nats-certificate", "a.pem"), "--nats-certificate and --nats-key"),
        (("--journal", "nats", "--nats-ca", "ca.pem"), "expected --nats with --nats-ca"),
        (("--journal", "nats", "--nats-monitoring", "http://a:1"), "expected --nats with --nats-monitoring"),
        (SERVER[2:], "expected --journal nats with --nats"),
        (("--journal", "nats", "--nats", "10.0.0.1"), "expected nats://host:port"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(
    served: list[ExchangeConfig], words: tuple[str, ...], message: str
) -> None:
    shown = CliRunner().invoke(app, ["up", *words], env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    assert message in " ".join(shown.output.split())
    assert served == []
