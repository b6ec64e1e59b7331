from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from exchange.cli import account, admin, app, config, orders, stages, status
from tests.cli.fake_client import FakeClient


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeClient]:
    """Make every command talk to a fake client with these answers."""

    def connect(**answers: object) -> FakeClient:
        client = FakeClient(**answers)

        def fake(*_: object) -> AbstractContextManager[FakeClient]:
            return nullcontext(client)

        for module in (app, orders, account, admin, config, stages, status):
            monkeypatch.setattr(module, "connect", fake)
        return client

    return connect
