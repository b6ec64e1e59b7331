"""One process's share of a load: sends each request at its time, whatever has become of those before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from chaos.load.attempts import AttemptLog, Command, kind_of
from chaos.load.behaviours import Client, Query, Request, make_client
from chaos.load.client_log import ACKNOWLEDGED, UNKNOWN, ClientLog
from chaos.load.listeners import BookListener, ExecutionListener, Listener
from chaos.load.plan import Group, LoadPlan, Market
from chaos.load.retries import REASONS_THAT_PASS
from chaos.load.seconds import LoadSecond, Seconds
from chaos.load.sending import Sender, make_sender
from exchange.client import AsyncClient, EvenkeelError, NotFound

IN_FLIGHT_MAX = 20_000
"""Of one process: beyond, requests are not sent, and counted as such."""
TICK_S = 0.1
FLUSH_S = 0.5
LISTEN_FIRST_S = 0.5
"""So that listeners hear of the first order."""
SETTLE_AFTER_S = 1.5
"""After its deadline an order that is not known will never be; the rest is for clocks and the way."""
HEARD_S_MAX = 5.0
"""For what was answered at the end to come on the stream of executions, too."""
ASKED_MAX, ASKING_MAX, ASK_S_MAX = 2_000, 16, 30.0
"""Of the orders whose outcome stayed unknown: so many are asked for, so many at a time, for so long."""
BOOK_LISTENERS_MAX = 2
SPAWNED_AT_ONCE_MAX = 32
"""When it is behind its schedule."""


class _Trader:
    """One client: what it sends next, how, and what it has not been told."""

    def __init__(
        self,
        plan: LoadPlan,
        group: Group,
        number: int,
        markets: Sequence[Market],
        log: ClientLog | None,
        addresses: Sequence[str],
    ) -> None:
        client = group.clients[number]
        random = Random(f"{plan.seed}-{client.name}")
        self.name = client.name
        self.group = group
        self.log = log
        self.behaviour: Client = make_client(group, number, markets, random)
        # Of its own, so that what is sent does not depend on how often something was tried again.
        waits = Random(f"{plan.seed}-{client.name}-waits")
        self.sender: Sender = make_sender(addresses, client.key, group, markets, AttemptLog(log), waits)
        self.asker = AsyncClient(addresses, client.key, timeout=group.deadline_ms / 1_000, retry="none")
        self.unknown: dict[str, Command] = {}
        self.acknowledged: dict[str, int] = {}
        """The last command of each shard that its executions must show."""
        self.listener: ExecutionListener | None = None
        self.attempts_seen = 0
        self.queries = 0


class Worker:
    """Runs the share `worker` of `workers` of a plan; `tell` gets each second once it is complete."""

    def __init__(
        self, plan: LoadPlan, logs: Path, worker: int, workers: int, tell: Callable[[LoadSecond], None]
    ) -> None:
        self._plan = plan
        self._worker, self._workers = worker, workers
        self._tell = tell
        self._files: list[ClientLog] = []
        self._logs = logs
        self._markets = {market.symbol: market for market in plan.markets}
        self._seconds = Seconds({group.name: group.deadline_ms / 1_000 for group in plan.groups})
        self._traders: dict[int, _Trader] = {}
        self._listening: list[asyncio.Task[None]] = []
        self._begun_s = 0.0
        self._is_stopping = False
        self._waking: asyncio.Future[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def _log(self, name: str) -> ClientLog:
        self._files.append(ClientLog(self._logs / f"{name}.log"))
        return self._files[-1]

    async def prepare(self) -> None:
        """Make the clients, and have the listeners listen."""
        plan = self._plan
        listeners: list[Listener] = []
        at = 0
        for group in plan.groups:
            markets = [self._markets[symbol] for symbol in group.markets]
            for number, client in enumerate(group.clients):
                if at % self._workers == self._worker:
                    first = at % len(plan.addresses)
                    addresses = [*plan.addresses[first:], *plan.addresses[:first]]
                    log = self._log(client.name) if plan.is_logged else None
                    self._traders[at] = _Trader(plan, group, number, markets, log, addresses)
                    if plan.is_logged:
                        executions = self._log(f"{client.name}.executions")
                        listener = ExecutionListener(plan.addresses, client.key, at + 1, executions, ())
                        self._traders[at].listener = listener
                        listeners.append(listener)
                at += 1
        if self._worker == 0 and plan.is_logged:
            for number, market in enumerate(plan.markets):
                for first in range(min(len(plan.addresses), BOOK_LISTENERS_MAX)):
                    log = self._log(f"{market.symbol}.book-{first}")
                    listeners.append(BookListener(plan.addresses, market.symbol, number + first, log))
        self._listening = [asyncio.create_task(listener.run()) for listener in listeners]
        if listeners:
            await asyncio.sleep(LISTEN_FIRST_S)

    @property
    def now_s(self) -> float:
        """Since the load began."""
        return time.monotonic() - self._begun_s

    async def run(self, begin_monotonic_ns: int) -> None:
        """Send the share from that time on until its end, or until `stop`; then wait for what is under way."""
        self._begun_s = begin_monotonic_ns / 1e9
        ticking = asyncio.create_task(self._tick())
        spawned = 0
        for at_s, number in self._plan.schedule(self._worker, self._workers):
            wait_s = at_s - self.now_s
            if wait_s > 0:
                await self._wait(wait_s)
                spawned = 0
            elif (spawned := spawned + 1) % SPAWNED_AT_ONCE_MAX == 0:
                await asyncio.sleep(0)  # behind: let answers in, too
            if self._is_stopping:
                break
            trader = self._traders[number]
            self._spawn(at_s, trader, trader.behaviour.next())
        if not self._is_stopping:
            await self._wait(self._plan.duration_s - self.now_s)
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self._settle()
        await self._hear()
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        self._tell_complete(self.now_s + 3_600.0)
        await self._close()

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopping = True
        if self._waking is not None:
            _wake(self._waking)

    async def _wait(self, wait_s: float) -> None:
        """Wait for a time, or until nothing more is to be sent."""
        loop = asyncio.get_running_loop()
        self._waking = waking = loop.create_future()
        timer = loop.call_later(max(wait_s, 0.0), _wake, waking)
        try:
            await waking
        finally:
            timer.cancel()

    def _spawn(self, at_s: float, trader: _Trader, request: Request) -> None:
        kind = "query" if isinstance(request, Query) else kind_of(request)
        market = request.market if isinstance(request, Query) else getattr(request, kind).instrument
        self._seconds.due(at_s, kind, market)
        if len(self._under_way) >= IN_FLIGHT_MAX:
            self._seconds.sent(at_s, self.now_s - at_s)
            self._seconds.not_sent(at_s)
            return
        if isinstance(request, Query):
            work = self._ask(at_s, trader, request)
        else:
            work = self._send(at_s, trader, request, kind, market)
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _send(self, at_s: float, trader: _Trader, command: Command, kind: str, market: str) -> None:
        self._seconds.sent(at_s, self.now_s - at_s)
        told = await trader.sender.send(command, int((self._begun_s + at_s) * 1e9))
        latency_s = self.now_s - at_s
        rejected = told.line.get("rej", 0)
        if told.outcome == UNKNOWN:
            self._seconds.unknown(at_s)
            if kind == "place" and trader.log is not None and len(trader.unknown) < ASKED_MAX:
                trader.unknown[command.place.client_order_id] = command
        elif told.outcome == ACKNOWLEDGED or 0 < rejected < REASONS_THAT_PASS:
            is_rejected = told.outcome != ACKNOWLEDGED
            if not is_rejected and kind != "cancel_all":
                shard, sequence = self._markets[market].shard, told.line.get("seq", 0)
                trader.acknowledged[shard] = max(trader.acknowledged.get(shard, 0), sequence)
            self._seconds.answered(at_s, kind, market, trader.group.name, latency_s, rejected=is_rejected)
        else:
            self._seconds.refused(at_s, told.reason)

    async def _ask(self, at_s: float, trader: _Trader, query: Query) -> None:
        client = trader.asker
        trader.queries += 1
        self._seconds.sent(at_s, self.now_s - at_s)
        try:
            match query.kind:
                case "book":
                    await client.order_book(query.market, 10)
                case "ticker":
                    await client.ticker(query.market)
                case "order":
                    await client.get_order(query.market, client_order_id=query.name)
                case _:
                    await client.balances()
        except NotFound:
            pass  # an answer as good as any
        except EvenkeelError as error:
            self._seconds.refused(at_s, type(error).__name__)
            return
        latency_s = self.now_s - at_s
        self._seconds.answered(at_s, "query", query.market, trader.group.name, latency_s, rejected=False)

    # ---------------------------------------------------------------- storms

    async def reconnect(self, group: str) -> int:
        """Have every client of a group drop its connections and make new ones, all at once; return how many."""
        traders = [trader for trader in self._traders.values() if group in ("", trader.group.name)]
        await asyncio.gather(*(trader.sender.reconnect() for trader in traders))
        return len(traders)

    async def cancel_all(self, group: str) -> int:
        """Have every client of a group cancel all it has, all at once; return how many orders that were."""
        traders = [trader for trader in self._traders.values() if group in ("", trader.group.name)]
        counts = await asyncio.gather(*(self._cancel_all(trader) for trader in traders))
        return sum(counts)

    async def _cancel_all(self, trader: _Trader) -> int:
        cancelled = 0
        for symbol in trader.group.markets:
            try:
                cancelled += (await trader.asker.cancel_all_orders(symbol)).cancelled_orders
            except EvenkeelError:
                pass  # refused or unknown: the proof is in how many were cancelled
        return cancelled

    # ---------------------------------------------------------------- beside it, and afterwards

    async def _tick(self) -> None:
        flushed_s = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now_s = self.now_s
            if now_s >= 0:
                self._count_attempts(now_s)
                self._tell_complete(now_s)
            if now_s > flushed_s + FLUSH_S:
                flushed_s = now_s
                for file in self._files:
                    file.flush()

    def _count_attempts(self, now_s: float) -> None:
        made = 0
        for trader in self._traders.values():
            attempts = trader.sender.attempts + trader.queries
            made += attempts - trader.attempts_seen
            trader.attempts_seen = attempts
        self._seconds.attempts(now_s, made)

    def _tell_complete(self, now_s: float) -> None:
        for second in self._seconds.complete(now_s, self._plan.duration_s):
            self._tell(second)

    async def _settle(self) -> None:
        """Find out what became of the orders whose outcome is unknown, as far as that can be in a time."""
        asked = [(trader, command) for trader in self._traders.values() for command in trader.unknown.values()]
        if not asked:
            return
        await asyncio.sleep(SETTLE_AFTER_S)
        room = asyncio.Semaphore(ASKING_MAX)

        async def settle(trader: _Trader, command: Command) -> None:
            async with room:
                await self._settle_one(trader, command)

        try:
            async with asyncio.timeout(ASK_S_MAX):
                await asyncio.gather(*(settle(*one) for one in asked[:ASKED_MAX]))
        except TimeoutError:
            pass  # their outcome stays unknown

    async def _settle_one(self, trader: _Trader, command: Command) -> None:
        place, log = command.place, trader.log
        assert log is not None, "only who keeps a log asks"
        try:
            order = await trader.asker.get_order(place.instrument, client_order_id=place.client_order_id)
        except NotFound:
            log.write("order", id=place.client_order_id, sym=place.instrument, found=False)
        except EvenkeelError:
            pass  # nobody knows
        else:
            found = {"oid": order.order_id, "st": int(order.status), "rej": int(order.reject_reason)}
            log.write("order", id=place.client_order_id, sym=place.instrument, found=True, **found)

    async def _hear(self) -> None:
        """Wait until the clients that listen were told of all that was acknowledged, or for so long."""
        until_s = self.now_s + HEARD_S_MAX
        while self.now_s < until_s and not all(
            trader.listener is None or trader.listener.has_heard(trader.acknowledged)
            for trader in self._traders.values()
        ):
            await asyncio.sleep(TICK_S)

    async def _close(self) -> None:
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        for trader in self._traders.values():
            await trader.sender.close()
            await trader.asker.aclose()
        for file in self._files:
            file.close()


def _wake(waking: asyncio.Future[None]) -> None:
    if not waking.done():
        waking.set_result(None)
