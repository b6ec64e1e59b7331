"""A shard that was paused does not execute what its client has long given up."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from exchange.client import Client, NotFound, OutcomeUnknown, Side
from exchange.cluster import LocalExchange
from exchange.config import ExchangeConfig
from exchange.settings_text import parse_settings
from tests.cluster.money import open_market, open_rich_account

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]
SYMBOL = "BTC-USDT"
PAUSE_S = 1.0


def test_an_order_whose_deadline_passed_while_its_shard_was_paused_is_not_executed(tmp_path: Path) -> None:
    # Nobody takes over, and nobody ends a shard for its silence.
    settings = parse_settings("[detection]\ndead_alone_after_ms = 600_000")
    config = ExchangeConfig(data_dir=tmp_path, port=0, shards=1, standbys=False, settings=settings)
    with LocalExchange(config) as exchange:
        with Client(exchange.address, exchange.operator_key, timeout=10) as operator:
            open_market(operator, SYMBOL)
            _, secret = open_rich_account(operator, "trader")
        with Client(exchange.address, secret, timeout=10) as client:
            begun_s = time.monotonic()
            assert client.place_order(SYMBOL, Side.BUY, "1", "5").accepted
            # By the way that it came the host knows how long the next one is on its way.
            first_s = time.monotonic() - begun_s
            pid = {c.name: c.pid for c in exchange.status().components}["shard-0"]
            os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(OutcomeUnknown):
                    client.place_order(SYMBOL, Side.BUY, "1", "5", client_order_id="late", timeout=0.3)
                # The pause goes on for longer than the deadline by far more than any way takes.
                threading.Event().wait(PAUSE_S)
            finally:
                os.kill(pid, signal.SIGCONT)
            # Behind it on the same link.
            assert client.place_order(SYMBOL, Side.BUY, "1", "5", client_order_id="after").accepted
            try:
                late = client.get_order(SYMBOL, client_order_id="late")
            except NotFound:
                pass
            else:
                pytest.fail(f"{late} was executed; the first order had taken {first_s:.3f} s")
            assert len(list(client.list_orders())) == 2
