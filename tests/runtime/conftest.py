"""NATS servers for the tests that need some and do them no harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exchange.runtime.nats_servers import NatsServers


@pytest.fixture(scope="session")
def nats_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    with NatsServers.start(tmp_path_factory.mktemp("nats")) as servers:
        yield servers
