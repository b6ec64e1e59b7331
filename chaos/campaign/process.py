"""The load, as a process of its own: `python -m chaos.campaign.process PLAN LOGS`.

It says "started" on its output, trades until its input is closed, and ends when every order has its outcome.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from chaos.campaign.plan import LoadPlan
from chaos.campaign.trader import BareSender, SdkSender, Sender, TradingClient
from chaos.load.client_log import ClientLog
from chaos.load.listeners import BookListener, ExecutionListener, Listener

FLUSH_S = 0.5
TOLD_S_MAX = 30.0


async def run(plan: LoadPlan, logs: Path) -> None:
    files: list[ClientLog] = []

    def log(name: str) -> ClientLog:
        files.append(ClientLog(logs / f"{name}.log"))
        return files[-1]

    addresses = plan.addresses
    clients: list[TradingClient] = []
    hearing: list[ExecutionListener] = []
    listeners: list[Listener] = []
    for number, trader in enumerate(plan.traders):
        turned = (*addresses[number % len(addresses) :], *addresses[: number % len(addresses)])
        sender: Sender = BareSender(turned, trader.key, 0)
        if trader.by_sdk:
            sender = await SdkSender(turned, trader.key).open()
        clients.append(TradingClient(plan, trader, log(trader.name), sender))
        executions = log(f"{trader.name}.executions")
        hearing.append(ExecutionListener(addresses, trader.key, number + 1, executions, clients[-1].last_ids))
    for number, market in enumerate(plan.markets):
        listeners += [
            BookListener(addresses, market, number + first, log(f"{market}.book-{first}"))
            for first in range(min(len(addresses), 2))
        ]
    listening = [_start(listener.run()) for listener in (*hearing, *listeners)]
    # Listeners first, so that they hear of the first order.
    await asyncio.sleep(0.5)
    stop = asyncio.Event()
    watching_input = _start(_until_input_ends(stop))
    flushing = _start(_flush(files))
    sys.stdout.write("started\n")
    sys.stdout.flush()
    await asyncio.gather(*(client.run(time.monotonic() + 0.1, stop) for client in clients))
    await _until_told(hearing)
    for task in (*listening, watching_input, flushing):
        task.cancel()
    await asyncio.gather(*listening, watching_input, flushing, return_exceptions=True)
    for file in files:
        file.close()


def _start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(coroutine)


async def _until_input_ends(stop: asyncio.Event) -> None:
    await asyncio.to_thread(sys.stdin.read)
    stop.set()


async def _flush(files: list[ClientLog]) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        for file in files:
            file.flush()


async def _until_told(listeners: list[ExecutionListener]) -> None:
    """Wait until everybody was told of the last order, and so of all before it."""
    try:
        async with asyncio.timeout(TOLD_S_MAX):
            await asyncio.gather(*(listener.heard_all.wait() for listener in listeners))
    except TimeoutError:
        pass  # the checker says who was not told


def main() -> None:
    plan, logs = sys.argv[1:]
    gc.freeze()
    asyncio.run(run(LoadPlan.read(Path(plan)), Path(logs)))


if __name__ == "__main__":
    main()
