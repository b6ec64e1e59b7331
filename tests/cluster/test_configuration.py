"""Settings of a real exchange: rolled out in steps while it trades, and taken back by itself when they hurt."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
import ray

from exchange.cli import run
from exchange.client import (
    AccountTier,
    AsyncClient,
    Client,
    EvenkeelError,
    Overloaded,
    PlaceOrder,
    RolloutState,
    SettingsVersion,
    Side,
    TradeSession,
)
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.ray_calls import NAMESPACE, SUPERVISORS
from exchange.settings_text import parse_settings
from tests.cluster.money import open_market, open_rich_account

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]
LIMIT_S = 120.0
SERVED_BURSTS = 10
WATCH = "[rollout]\nwatch_ms = 3_000\n"
TEN_TIMES_TOO_LOW = WATCH + "[detection]\nsuspect_after_ms = 50\ndead_after_ms = 100\ndead_alone_after_ms = 1_000\n"
GOOD = WATCH + "[detection]\nsuspect_after_ms = 600\n"


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExchange]:
    directory = Path(tmp_path_factory.mktemp("exchange"))
    with LocalExchange(ExchangeConfig(data_dir=directory, port=0, shards=1, settings=parse_settings(WATCH))) as running:
        running.wait(complete=True)
        with Client(running.address, running.operator_key, timeout=10) as operator:
            open_market(operator, "BTC-USDT")
        yield running


@pytest.fixture
def operator(exchange: LocalExchange) -> Iterator[Client]:
    with Client(exchange.address, exchange.operator_key, timeout=10) as client:
        yield client


def active_supervisor_pid() -> int:
    for name in SUPERVISORS:
        said = ray.get(ray.get_actor(name, namespace=NAMESPACE).lead.remote())
        if said["is_active"]:
            return int(said["pid"])
    raise AssertionError("no supervisor is active")


def cli(exchange: LocalExchange, *words: str) -> int:
    return run([*words, "--data", str(exchange.config.data_dir)])


def ended(operator: Client, version: int) -> SettingsVersion:
    give_up_s = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up_s:
        try:
            found = next(v for v in operator.settings_history() if v.version == version)
            if found.state != RolloutState.ROLLING:
                return found
        except EvenkeelError:
            pass  # a gateway or a supervisor is being replaced
        time.sleep(0.1)
    raise TimeoutError(f"version {version} did not end within {LIMIT_S:.0f} s")


def until_held(operator: Client, version: int) -> None:
    """Return when every process has a version of the settings."""
    give_up_s = time.monotonic() + LIMIT_S
    while {c.settings_version for c in operator.status().components if c.name != "auditor"} != {version}:
        assert time.monotonic() < give_up_s, f"not everywhere within {LIMIT_S:.0f} s"
        time.sleep(0.05)


def stages(operator: Client, version: int) -> list[str]:
    return [e.detail for e in operator.events() if e.kind == "rollout" and e.detail.startswith(f"version {version}")]


@contextmanager
def pauses(pid: int, seconds: float) -> Iterator[None]:
    """Stop a process again and again for so long, as a disk or a neighbour on its machine does."""
    over = threading.Event()

    def pause() -> None:
        while not over.wait(seconds):
            try:
                os.kill(pid, signal.SIGSTOP)
                over.wait(seconds)
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                return

    thread = threading.Thread(target=pause)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def test_good_settings_reach_every_process_in_steps_while_orders_are_taken(
    exchange: LocalExchange, operator: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, secret = open_rich_account(operator, "trader")
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    begun = operator.apply_settings(GOOD, reason="a slower disk")
    with Client(exchange.address, secret, timeout=10) as trader:
        while operator.settings().newest.state == RolloutState.ROLLING:
            trader.place_order("BTC-USDT", Side.BUY, "0.001", 10)
    assert ended(operator, begun.version).state == RolloutState.APPLIED
    assert stages(operator, begun.version) == [
        f"version {begun.version} by {begun.key_id}: a slower disk: detection.suspect_after_ms 500 → 600",
        f"version {begun.version}: step 1/3, to gateway-0",
        f"version {begun.version}: step 2/3, to shard-0",
        f"version {begun.version}: step 3/3, to ledger",
        f"version {begun.version} applied",
    ]
    assert cli(exchange, "config", "apply", str(file), "--reason", "again") == 1
    assert "SETTINGS_UNCHANGED" in capsys.readouterr().err


def test_timeouts_ten_times_too_low_are_taken_back_by_themselves_and_the_events_show_it(
    exchange: LocalExchange, operator: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(TEN_TIMES_TOO_LOW)
    shard = next(c for c in operator.status().components if c.name == "shard-0")
    before = operator.settings().applied
    with pauses(shard.pid, 0.3):
        assert cli(exchange, "config", "apply", str(file), "--reason", "quicker", "--wait") == 1
    shown = capsys.readouterr()
    assert "error SETTINGS_REVERTED: shard-0 lost while the new settings were watched there" in shown.err
    assert cli(exchange, "events", "--limit", "200") == 0
    told = " ".join(capsys.readouterr().out.split())
    for stage in ("step 1/3, to gateway-0", "step 2/3, to shard-0", "taken back: shard-0 lost"):
        assert stage in told
    assert operator.settings().applied == before
    # With the old ones such a pause costs nothing.
    exchange.wait(complete=True)
    shard = next(c for c in operator.status().components if c.name == "shard-0")
    with pauses(shard.pid, 0.3):
        time.sleep(2.0)  # the pauses themselves
    again = next(c for c in operator.status().components if c.name == "shard-0")
    assert again.incarnation == shard.incarnation
    held = {c.settings_version for c in operator.status().components if c.name != "auditor"}
    assert held == {before.version}


class Bursts:
    """Sends four messages of 20 orders at once, and the next four when they are answered, whatever the answers are.

    One is with the shard for 20 ms at least: they are declared to take 40, of which a shard may catch up with 20. One
    waits behind it, as it may where nothing waits. The other two find 20 orders waiting, and 20 more have room in
    queues of 250 ms, but not in queues of 10 ms.
    """

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = address, key
        self._served, self._over = threading.Event(), threading.Event()
        self._run_by = ThreadPoolExecutor(1)

    async def _run(self) -> None:
        """Go on until it is over. What goes wrong meanwhile is raised there, or nothing would be refused any more."""
        client = AsyncClient(self._address, self._key, timeout=LIMIT_S, retry="none")
        served = 0
        async with client, client.trade() as session:
            while not self._over.is_set():
                refused = sum(await asyncio.gather(*(self._is_refused(session) for _ in range(4))))
                served = 0 if refused else served + 1
                if served == SERVED_BURSTS:
                    self._served.set()

    async def _is_refused(self, session: TradeSession) -> bool:
        orders = [PlaceOrder(instrument="BTC-USDT", side=Side.BUY, quantity="0.001", price=10) for _ in range(20)]
        try:
            await session.send(orders)
        except Overloaded:
            return True
        return False

    def __enter__(self) -> Bursts:
        """Return when several in a row were served whole: what is refused from then on is the new settings' doing."""
        self._running = self._run_by.submit(lambda: asyncio.run(self._run()))
        self._running.add_done_callback(lambda _: self._served.set())
        if not self._served.wait(LIMIT_S):
            self._over.set()
            raise TimeoutError(f"no {SERVED_BURSTS} bursts in a row were served whole within {LIMIT_S:.0f} s")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._running.result(LIMIT_S)
        self._run_by.shutdown()


def test_queues_ten_times_too_short_are_taken_back_from_the_first_gateway_for_what_it_refuses(
    exchange: LocalExchange, operator: Client
) -> None:
    account, secret = open_rich_account(operator, "bursts")
    # What is refused is asked again at once: by the rate limit it would be refused, too.
    operator.set_account_tier(account, AccountTier.UNLIMITED)
    # Each order is declared to take 2 ms, so that what the queues hold does not depend on this machine.
    begun = operator.apply_settings("service_time_us = 2_000\n" + WATCH, reason="an experiment", force=True)
    assert begun.state == RolloutState.APPLIED
    # Else the gateway learns from a first burst how fast the shard is without them.
    until_held(operator, begun.version)
    short = "[queues]\norders_wait_ms = 10\npassive_wait_ms = 10\n[credits]\nstart = 1\n"
    with Bursts(exchange.address, secret):
        bad = operator.apply_settings("service_time_us = 2_000\n" + WATCH + short, reason="shorter queues")
        reverted = ended(operator, bad.version)
    assert reverted.state == RolloutState.REVERTED
    assert reverted.detail.startswith("refused: expected at most ")
    assert reverted.steps_begun == 1
    assert operator.settings().applied.version == begun.version


def test_metrics_are_served_while_it_runs(exchange: LocalExchange, operator: Client) -> None:
    gateway = next(c for c in operator.status().components if c.metrics_url)
    with urlopen(gateway.metrics_url, timeout=10) as response:
        text = response.read().decode()
    for line in (
        "evenkeel_supervisor_up 1.0",
        'evenkeel_shard_open{shard="shard-0"}',
        "evenkeel_gateway_commands_total",
    ):
        assert line in text


def test_a_value_out_of_range_is_refused_with_the_range_and_the_reason(
    exchange: LocalExchange, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("[detection]\ndead_after_ms = 10\n")
    assert cli(exchange, "config", "apply", str(file), "--reason", "quicker") == 1
    message = capsys.readouterr().err
    assert message.startswith(
        "error SETTINGS_INVALID: detection.dead_after_ms: expected a whole number from 100 to 600,000, was 10 ("
    )


def test_the_supervisor_that_takes_over_takes_back_what_was_under_way(
    exchange: LocalExchange, operator: Client
) -> None:
    exchange.wait(complete=True)
    before = operator.settings().applied
    begun = operator.apply_settings(WATCH + "[codel]\ntarget_ms = 30\n", reason="a test")
    os.kill(active_supervisor_pid(), signal.SIGKILL)
    assert ended(operator, begun.version).detail == "the supervisor was replaced while it was watched"
    assert operator.settings().applied == before
