"""A process of a load: `python -m chaos.load.process PLAN LOGS WORKER WORKERS`.

It reads a line of JSON for each order that it is given (`Order`), and writes one for each thing that it says (`Said`).
It ends when the load is over and everything that was sent has its outcome, or when its input is closed.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from pathlib import Path
from typing import Literal

import msgspec
import uvloop

from chaos.load.plan import LoadPlan
from chaos.load.seconds import LoadSecond
from chaos.load.worker import Worker

GC_THRESHOLDS = 50_000, 20, 100
"""Requests make no cycles: a collection of everything would only delay those that are due."""


class Order(msgspec.Struct, kw_only=True):
    """`begin` at a time of CLOCK_MONOTONIC, `stop` sending, or a storm: of the clients of `group`, "" for all."""

    do: Literal["begin", "stop", "reconnect", "cancel_all"]
    at_monotonic_ns: int = 0
    group: str = ""


class Said(msgspec.Struct, kw_only=True, omit_defaults=True):
    what: Literal["ready", "second", "storm", "ended"]
    second: LoadSecond | None = None
    count: int = 0
    """Of a storm: how many connections or orders it was about."""


def say(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


async def serve(plan: LoadPlan, logs: Path, number: int, workers: int) -> None:
    worker = Worker(plan, logs, number, workers, lambda second: say(Said(what="second", second=second)))
    await worker.prepare()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    say(Said(what="ready"))
    orders: asyncio.Queue[Order | None] = asyncio.Queue()
    # A daemon: it waits for input that nobody sends any more when the load is over.
    threading.Thread(target=_read, args=(asyncio.get_running_loop(), orders), daemon=True).start()
    running: asyncio.Task[None] | None = None
    storms: set[asyncio.Task[None]] = set()
    while not (running and running.done()):
        next_order = asyncio.create_task(orders.get())
        await asyncio.wait([next_order, *([running] if running else [])], return_when=asyncio.FIRST_COMPLETED)
        if not next_order.done():
            next_order.cancel()
            break
        order = next_order.result()
        if order is None or order.do == "stop":
            worker.stop()
            if running is None:
                return
            await running
        elif order.do == "begin":
            running = asyncio.create_task(worker.run(order.at_monotonic_ns))
        else:
            storm = asyncio.create_task(_storm(worker, order))
            storms.add(storm)
            storm.add_done_callback(storms.discard)
    assert running is not None
    await running
    say(Said(what="ended"))


async def _storm(worker: Worker, order: Order) -> None:
    does = worker.reconnect if order.do == "reconnect" else worker.cancel_all
    say(Said(what="storm", count=await does(order.group)))


def _read(loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[Order | None]) -> None:
    decoder = msgspec.json.Decoder(Order)
    for line in sys.stdin.buffer:
        loop.call_soon_threadsafe(orders.put_nowait, decoder.decode(line))
    loop.call_soon_threadsafe(orders.put_nowait, None)


def main() -> None:
    plan, logs, number, workers = sys.argv[1:]
    uvloop.run(serve(LoadPlan.read(Path(plan)), Path(logs), int(number), int(workers)))


if __name__ == "__main__":
    main()
