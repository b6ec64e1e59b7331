"""The supervisor's tests run in virtual time."""

from __future__ import annotations

from collections.abc import Mapping

from tests.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories() -> Mapping[str, type[VirtualTimeLoop]]:
    return {"virtual": VirtualTimeLoop}
