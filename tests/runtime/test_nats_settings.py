"""Settings say what is wrong with them, and neither that nor their text gives a secret away."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exchange.runtime.journal import JournalUnavailable
from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.journal.nats_settings import NatsSettings
from exchange.runtime.nats_servers import NatsServers
from tests.runtime.certificates import make_certificates, tls_of_server

ONE = ("nats://a:4222",)
LOGIN = 'authorization { user: "exchange", password: "hush" }\n'
THREE = ("nats://a:4222", "nats://b:4222", "tls://c:4222")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"servers": ()}, "servers: expected at least one"),
        ({"servers": ("a:4222",)}, r"servers\[0\]: expected nats://host:port or tls://host:port, was 'a:4222'"),
        ({"servers": ("nats://a",)}, r"servers\[0\]: expected nats://host:port"),
        ({"servers": ("nats://a:99999",)}, r"servers\[0\]: expected nats://host:port"),
        ({"servers": THREE[:2]}, "expected one, or three or more .*, was 2"),
        ({"replicas": 2}, "replicas: expected 1, 3 or 5, was 2"),
        ({"prefix": "a.b"}, "prefix: expected 1 to 32 of letters"),
        ({"monitoring_urls": ("nats://a:1",)}, r"monitoring_urls\[0\]: expected http://host:port"),
        ({"key_file": Path("key")}, "certificate_file and key_file: expected both or neither"),
        ({"user": "me"}, "user and password: expected both or neither"),
        ({"token": "t", "credentials_file": Path("c")}, "expected one of user, token and credentials_file"),
        ({"append_limit_s": 0}, "append_limit_s: expected 0.05 to 600, was 0"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NatsSettings(**{"servers": THREE, **changes})


def test_secrets_are_neither_in_the_text_nor_in_errors() -> None:
    settings = NatsSettings(ONE, user="me", password="hush")
    assert "hush" not in repr(settings)
    assert "hush" not in repr(NatsSettings(ONE, token="hush"))
    with pytest.raises(ValueError, match="expected no credentials in the address") as caught:
        NatsSettings(("nats://me:hush@a:1",))
    assert "hush" not in str(caught.value)
    with pytest.raises(ValueError, match="without credentials") as caught:
        NatsSettings(ONE, monitoring_urls=("http://me:hush@a:1",))
    assert "hush" not in str(caught.value)


def test_three_copies_where_there_are_three_servers() -> None:
    assert NatsSettings(ONE).copies == 1
    assert NatsSettings(THREE).copies == 3
    assert NatsSettings(ONE, replicas=3).copies == 3


def test_settings_can_be_sent_to_other_processes() -> None:
    settings = NatsSettings(THREE, token="t")
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_servers_that_are_not_there_are_unavailable_and_named() -> None:
    settings = NatsSettings(("nats://127.0.0.1:1",), connect_timeout_s=0.2)
    with pytest.raises(
        JournalUnavailable, match=r"could not connect to any of nats://127\.0\.0\.1:1: .*ConnectionRefusedError"
    ):
        NatsJournal.open(settings, "shard-0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secured(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsSettings]:
    configuration = tls_of_server(files) + LOGIN
    directory = tmp_path_factory.mktemp("secured")
    with NatsServers.start(directory, servers=1, configuration=configuration) as servers:
        yield replace(
            servers.settings(),
            servers=(servers.urls[0].replace("nats:", "tls:"),),
            user="exchange",
            password="hush",
            ca_file=files / "ca.pem",
            certificate_file=files / "node.pem",
            key_file=files / "node.key",
        )


class TestSecuredServer:
    """One server that asks for TLS with a certificate from both sides, and for a password."""

    def test_it_is_reached_with_certificate_and_password(self, secured: NatsSettings) -> None:
        journal = NatsJournal.open(secured, "shard-0")
        journal.append(journal.acquire(), 1, b"secret")
        assert [record.payload for record in journal.read(1)] == [b"secret"]
        journal.close()

    @pytest.mark.parametrize(
        ("without", "why"),
        [
            ({"password": "wrong hush"}, "authorization violation"),
            ({"certificate_file": None, "key_file": None}, ""),
            ({"ca_file": None}, "certificate verify failed"),
        ],
    )
    def test_it_is_not_reached_without_and_no_secret_is_told(
        self, secured: NatsSettings, without: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = replace(secured, connect_timeout_s=0.5, **without)
        with pytest.raises(JournalUnavailable, match=f"(?i)could not connect .*{why}") as caught:
            NatsJournal.open(settings, "shard-0")
        assert "hush" not in str(caught.value)
        assert "hush" not in "".join(capsys.readouterr())

    def test_it_is_reached_again_after_it_refused_the_password_for_a_while(self, tmp_path: Path) -> None:
        with NatsServers.start(tmp_path, servers=1, configuration=LOGIN) as servers:
            settings = replace(servers.settings(), user="exchange", password="hush", append_limit_s=0.5)
            journal = NatsJournal.open(settings, "shard-0")
            epoch = journal.acquire()
            configuration = tmp_path / "nats-0" / "server.conf"
            content = configuration.read_text()
            configuration.write_text(content.replace("hush", "another"))
            servers.signal_server(0, signal.SIGHUP)
            poll = threading.Event()
            while journal.is_connected:
                poll.wait(0.01)
            with pytest.raises(JournalUnavailable) as caught:
                journal.append(epoch, 1, b"1")
            assert caught.value.surely_absent
            configuration.write_text(content)
            servers.signal_server(0, signal.SIGHUP)
            again = 0
            while not again:
                try:
                    again = journal.reopen()
                except JournalUnavailable:
                    poll.wait(0.05)
            journal.append(again, 1, b"1")
            assert [record.payload for record in journal.read(1)] == [b"1"]
            journal.close()

    def test_a_file_that_is_missing_is_named(self, secured: NatsSettings, tmp_path: Path) -> None:
        settings = replace(secured, ca_file=tmp_path / "no such file", connect_timeout_s=0.5)
        with pytest.raises(JournalUnavailable, match="no such file"):
            NatsJournal.open(settings, "shard-0")


def test_a_server_of_an_operator_is_reached_with_a_credentials_file(tmp_path: Path) -> None:
    from tests.runtime.nats_operator import make_operator

    configuration, credentials = make_operator()
    file = tmp_path / "user.creds"
    file.write_text(credentials)
    with NatsServers.start(tmp_path / "nats", servers=1, configuration=configuration) as servers:
        settings = replace(servers.settings(), credentials_file=file)
        journal = NatsJournal.open(settings, "shard-0")
        journal.append(journal.acquire(), 1, b"secret")
        assert [record.payload for record in journal.read(1)] == [b"secret"]
        journal.close()
        for without, why in (
            (replace(settings, credentials_file=None), "(?i)authorization violation"),
            (replace(settings, credentials_file=tmp_path / "none"), "credentials_file: expected a file at"),
        ):
            with pytest.raises(JournalUnavailable, match=why):
                NatsJournal.open(replace(without, connect_timeout_s=0.5), "shard-0")
