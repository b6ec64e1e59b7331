"""Whether this machine reaches the others, whatever runs on them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

CONNECT_TIMEOUT_S = 0.3


class Reach:
    """Knows where each node listens, its own too: (host, port)."""

    def __init__(self, nodes: Collection[tuple[str, int]]) -> None:
        self._nodes = nodes

    async def is_cut_off(self) -> bool:
        """Whether most of several nodes do not answer. Of one other node, nobody can tell which one is cut off."""
        answered = await asyncio.gather(*(_answers(host, port) for host, port in self._nodes))
        silent = answered.count(False)
        return silent > 1 and silent > answered.count(True)


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True  # nobody listens there any more, says its machine
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
