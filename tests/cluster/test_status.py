"""What the public is told when processes are killed, and how soon: a real exchange, and the status service as it runs.

The figures are printed; nothing here depends on them. `EVENKEEL_STATUS_TRIALS` sets how many of each.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from exchange.client import Client, ComponentState, EvenkeelError, MaintenanceKind, NotExecuted, Side, Stage
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.settings import restarting_freely
from exchange.v1 import status_pb2, status_pb2_grpc
from status.prepare import prepare
from tests.cluster.money import open_market, open_rich_account

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
TRIALS = int(os.environ.get("EVENKEEL_STATUS_TRIALS", "2"))
QUIET_S = int(os.environ.get("EVENKEEL_STATUS_QUIET_S", "30"))
FINE = ("operational",)
_UP = "from exchange.cli import main; main()"


class Watcher:
    """Reads WatchStatus on a thread, with the time at which each board came."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._boards: queue.Queue[tuple[float, status_pb2.Board]] = queue.Queue()
        self.board = status_pb2.Board()
        self.seen: Counter[tuple[str, str]] = Counter()
        """How many boards said so of a component."""
        stub = status_pb2_grpc.StatusServiceStub(self._channel)
        # The service is still starting.
        self._call = stub.WatchStatus(status_pb2.WatchStatusRequest(), wait_for_ready=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._boards.put((time.monotonic(), response.board))
        except grpc.RpcError:
            pass  # closed

    def until(self, seen: Callable[[status_pb2.Board], bool], timeout_s: float = 120.0) -> float:
        """Return when the first board came of which it is so; the newest one counts as come already."""
        give_up_s = time.monotonic() + timeout_s
        if seen(self.board):
            return time.monotonic()
        while True:
            at_s, self.board = self._boards.get(timeout=max(give_up_s - time.monotonic(), 0.01))
            self.seen.update((component.id, component.status) for component in self.board.components)
            if seen(self.board):
                return at_s

    def drain(self) -> None:
        """Take in all boards that have come."""
        while not self._boards.empty():
            _, self.board = self._boards.get()
            self.seen.update((component.id, component.status) for component in self.board.components)

    def close(self) -> None:
        self._call.cancel()
        self._thread.join()
        self._channel.close()


class Hook:
    """A subscriber's webhook, with the time at which each announcement came."""

    def __init__(self) -> None:
        self.came: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                came.put((time.monotonic(), json.loads(self.rfile.read(int(self.headers["content-length"])))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def until(self, said: str, timeout_s: float = 120.0) -> float:
        """Return when the first announcement came in whose newest words this is."""
        give_up_s = time.monotonic() + timeout_s
        while True:
            at_s, announced = self.came.get(timeout=max(give_up_s - time.monotonic(), 0.01))
            if said in announced["latest"]:
                return at_s

    def __enter__(self) -> Hook:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def status_service(
    folder: Path, addresses: list[str], operator_key_file: Path, port: int, hook: str = ""
) -> Iterator[Watcher]:
    """The service as a process of its own, until the block ends. `hook`: where it announces."""
    quoted = ", ".join(f'"{address}"' for address in addresses)
    (folder / "status.toml").write_text(
        f'data_dir = "status"\n[exchange]\naddresses = [{quoted}]\noperator_key_file = "{operator_key_file}"\n'
        "[incidents]\nresolve_ms = 3000\n"
        f"[serving]\nhttp_port = 0\ngrpc_port = {port}\n"
    )
    if hook:
        (folder / "status" / "hook.key").write_text("secret")
        with (folder / "status.toml").open("a") as file:
            file.write(
                f'[[subscribers]]\nchannel = "webhook"\nname = "hook"\nurl = "{hook}"\nsecret_file = "hook.key"\n'
            )
    with (folder / "status.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "status.cli", "serve", "--settings", str(folder / "status.toml")],
            stdout=log,
            stderr=log,
        )
    watcher = Watcher(f"127.0.0.1:{port}")
    try:
        yield watcher
    finally:
        watcher.close()
        process.terminate()
        assert process.wait(30) == 0


def all_fine(board: status_pb2.Board) -> bool:
    return bool(board.components) and all(component.status in FINE for component in board.components)


def test_the_board_tells_that_shards_and_gateways_were_killed_and_are_back(tmp_path: Path, free_port: int) -> None:
    config = ExchangeConfig(data_dir=tmp_path / "exchange", port=0, settings=restarting_freely())
    told: dict[str, list[tuple[float, float]]] = {"shard-0": [], "gateway-0": []}
    with LocalExchange(config) as exchange:
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            open_market(operator, "BTC-USDT")
            open_market(operator, "ETH-USDT")
            prepare(operator, tmp_path / "status" / "probe.key", "1000", lambda _: None)
        key_file = tmp_path / "exchange" / "operator.key"
        with status_service(tmp_path, [exchange.address], key_file, free_port) as watcher:
            watcher.until(lambda board: all_fine(board) and len(board.components) == 6)
            for _ in range(TRIALS):
                for victim, times in told.items():
                    pid = {c.name: c for c in exchange.status().components}[victim].pid
                    killed_s = time.monotonic()
                    os.kill(pid, signal.SIGKILL)
                    said_s = watcher.until(lambda board: not all_fine(board))
                    well_s = until_well(exchange.address, exchange.operator_key, victim, pid)
                    back_s = watcher.until(all_fine)
                    times.append((said_s - killed_s, back_s - well_s))
                    print(
                        f"{victim}: told after {times[-1][0]:.2f} s, well told after {times[-1][1]:.2f} s", flush=True
                    )
                    time.sleep(1.0)
    for victim, times in told.items():
        summarise(victim, times)


def test_the_board_stands_while_all_of_the_exchange_is_gone(tmp_path: Path, free_port: int) -> None:
    data = tmp_path / "exchange"
    times: list[tuple[float, float]] = []
    announced: list[tuple[float, float]] = []
    exchange_process = start_exchange(data)
    try:
        address = until_served(data)
        key = (data / "operator.key").read_text().strip()
        with Client(address, key, timeout=10) as operator:
            open_market(operator, "BTC-USDT")
            prepare(operator, tmp_path / "status" / "probe.key", "1000", lambda _: None)
        with (
            Hook() as hook,
            status_service(tmp_path, [address], data / "operator.key", free_port, hook.url) as watcher,
        ):
            watcher.until(lambda board: all_fine(board) and len(board.components) == 4)
            for _ in range(TRIALS):
                with Client(address, key, timeout=10) as operator:
                    pids = [c.pid for c in operator.status().components if c.pid]
                killed_s = time.monotonic()
                for pid in (exchange_process.pid, *pids):
                    os.kill(pid, signal.SIGKILL)
                said_s = watcher.until(lambda board: not all_fine(board))
                incident_s = watcher.until(lambda board: board.indicator == "critical")
                watcher.until(lambda board: all(c.status == "major_outage" for c in board.components), 5.0)
                assert len(watcher.board.incidents) == 1  # the same one, each time anew
                announced_s = hook.until("Investigating")
                exchange_process.wait()
                time.sleep(3.0)  # the keeper ends what is left of Ray
                exchange_process = start_exchange(data, address.rpartition(":")[2])
                until_served(data)
                well_s = until_well(address, key, "shard-0", 0)
                back_s = watcher.until(all_fine)
                all_well_s = hook.until("Monitoring: All ")
                watcher.until(lambda board: board.indicator == "none")
                times.append((said_s - killed_s, back_s - well_s))
                announced.append((announced_s - killed_s, all_well_s - well_s))
                print(
                    f"everything: told after {said_s - killed_s:.2f} s, incident after {incident_s - killed_s:.2f} s, "
                    f"announced after {announced_s - killed_s:.2f} s, well told after {back_s - well_s:.2f} s, "
                    f"announced after {all_well_s - well_s:.2f} s",
                    flush=True,
                )
    finally:
        exchange_process.terminate()
        exchange_process.wait(60)
    summarise("everything", times)
    summarise("everything, as announced to a webhook", announced)


def test_an_announced_restart_of_everything_under_load_is_maintenance_and_no_incident(
    tmp_path: Path, free_port: int
) -> None:
    config = ExchangeConfig(data_dir=tmp_path / "exchange", port=0, gateways=2)
    with LocalExchange(config) as exchange:
        addresses = [c.address for c in exchange.status().components if c.address]
        with Client(addresses, exchange.operator_key, timeout=10) as operator:
            open_market(operator, "BTC-USDT")
            open_market(operator, "ETH-USDT")
            prepare(operator, tmp_path / "status" / "probe.key", "1000", lambda _: None)
            _, secret = open_rich_account(operator, "trader")
        key_file = tmp_path / "exchange" / "operator.key"
        ended = threading.Event()
        trader = threading.Thread(target=trade, args=(addresses, secret, ended))
        with status_service(tmp_path, addresses, key_file, free_port) as watcher:
            watcher.until(lambda board: all_fine(board) and len(board.components) == 7)
            trader.start()
            try:
                begun_s = time.monotonic()
                with grpc.insecure_channel(f"127.0.0.1:{free_port}") as channel:
                    schedule = status_pb2.ScheduleMaintenanceRequest(
                        name="New version",
                        from_time_ns=time.time_ns(),
                        until_time_ns=time.time_ns() + 600 * 10**9,
                        body="Short pauses are possible.",
                    )
                    operator_key = (("authorization", f"Bearer {exchange.operator_key}"),)
                    status_pb2_grpc.StatusServiceStub(channel).ScheduleMaintenance(schedule, metadata=operator_key)
                with Client(addresses, exchange.operator_key, timeout=10) as operator:
                    start_restart(operator)
                completed_s = watcher.until(lambda board: any(m.status == "completed" for m in board.maintenances), 180)
                ended.wait(max(begun_s + QUIET_S - time.monotonic(), 0))
            finally:
                ended.set()
                trader.join()
            watcher.drain()
            print(f"restart of everything took {completed_s - begun_s:.0f} s; watched for {QUIET_S} s", flush=True)
            print({(name, status): count for (name, status), count in watcher.seen.items() if status not in FINE})
            assert not watcher.board.incidents
            (maintenance,) = watcher.board.maintenances
            states = [update.status for update in reversed(maintenance.updates)]
            assert states == ["scheduled", "in_progress", "verifying", "completed"]


def start_restart(operator: Client, timeout_s: float = 60.0) -> None:
    """Standbys of an exchange that has just started may not follow yet: then it is refused."""
    give_up_s = time.monotonic() + timeout_s
    while True:
        try:
            operator.start_maintenance(MaintenanceKind.RESTART)
            return
        except NotExecuted:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.5)


def trade(addresses: list[str], secret: str, ended: threading.Event) -> None:
    """About 40 orders a second, each cancelled at once."""
    with Client(addresses, secret, timeout=5) as client:
        while not ended.wait(0.04):
            for symbol in ("BTC-USDT", "ETH-USDT"):
                try:
                    placed = client.place_order(symbol, Side.BUY, "0.01", "5")
                    client.cancel_order(symbol, placed.client_order_id)
                except EvenkeelError:
                    continue


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_exchange(data: Path, port: str = "0") -> subprocess.Popen[bytes]:
    (data / "address").unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", _UP, "up", "--data", str(data), "--port", port, "--shards", "1"],
        stdout=subprocess.DEVNULL,
    )


def until_served(data: Path, timeout_s: float = 120.0) -> str:
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        file = data / "address"
        if file.exists() and (address := file.read_text().strip()):
            with Client(address, None, timeout=1) as client:
                try:
                    client.instruments()
                except EvenkeelError:
                    time.sleep(0.1)
                    continue
            return address
        time.sleep(0.1)
    raise AssertionError("the exchange did not come up")


def until_well(address: str, key: str, name: str, killed_pid: int, timeout_s: float = 120.0) -> float:
    """Return when the exchange itself says that the component is back, and that all markets are open."""
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        with Client(address, key, timeout=1) as client:
            try:
                found = {c.name: c for c in client.status().components}
                open_ = all(i.stage is Stage.OPEN for i in client.instruments())
            except EvenkeelError:
                time.sleep(0.05)
                continue
        part = found.get(name)
        is_up = part is not None and part.pid not in (0, killed_pid) and part.state is ComponentState.UP
        # A gateway has no stage, and tells that of a shard a moment later than the supervisor.
        if open_ and is_up and part is not None and part.stage in (Stage.UNSPECIFIED, Stage.OPEN):
            return time.monotonic()
        time.sleep(0.05)
    raise AssertionError(f"{name} did not come back")


def summarise(what: str, times: list[tuple[float, float]]) -> None:
    said, back = [t[0] for t in times], [t[1] for t in times]
    print(
        f"{what}: {len(times)} trials; told after median {statistics.median(said):.2f} s, worst {max(said):.2f} s; "
        f"well told after median {statistics.median(back):.2f} s, worst {max(back):.2f} s",
        flush=True,
    )
