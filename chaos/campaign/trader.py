"""Clients that send the flow at its intended times, whatever the answers, and write down all of it.

An order whose outcome stays unknown is asked for by GetOrder once its deadline has passed, and if there is none sent
again with the same id: so in the end each has a definite outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import grpc

from chaos.campaign.flow import CommandMessage, Flow
from chaos.campaign.plan import LoadPlan, Trader
from chaos.load.attempts import CHANNEL_OPTIONS, bearer
from chaos.load.client_log import (
    ACKNOWLEDGED,
    REJECTED,
    UNKNOWN,
    ClientLog,
    fields_of_command,
    fields_of_result,
)
from exchange.client import AsyncClient, EvenkeelError, NotExecuted, NotFound
from exchange.v1 import trading_pb2, trading_pb2_grpc

SETTLE_AFTER_S = 1.5
"""After its deadline an order that is not known will never be; the rest is for clocks and the way."""
ASK_TIMEOUT_S = 2.0
ANSWER_GRACE_S = 12.0
"""A gateway says "unknown" after 10 s: an answer that is later than this is none."""


class Sender:
    """How a message gets to the exchange. `exchange` raises `NotExecuted`, or any other error for "unknown"."""

    address = ""

    async def exchange(self, commands: Sequence[CommandMessage], timeout_s: float) -> Sequence[Any]:
        """Send the commands and return an OrderResult for each."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class SdkSender(Sender):
    """The SDK's session: it finds a gateway, and sends places and cancels again by itself."""

    def __init__(self, addresses: Sequence[str], key: str) -> None:
        self._client = AsyncClient(addresses, key, timeout=1.0, reconnect_timeout=None, keepalive=5.0)
        self._session = self._client.trade(timeout=1.0, in_flight_max=2_000)

    async def open(self) -> SdkSender:
        await self._session.__aenter__()
        return self

    async def exchange(self, commands: Sequence[CommandMessage], timeout_s: float) -> Sequence[Any]:
        self.address = self._client.address
        return await self._session.send_encoded(commands, timeout=timeout_s)

    async def close(self) -> None:
        # As by an exception: what has no answer by now gets none.
        await self._session.__aexit__(RuntimeError, None, None)
        await self._client.aclose()


class BareSender(Sender):
    """A stream over the bare stub: nothing is sent twice, and when it breaks what was under way is unknown."""

    def __init__(self, addresses: Sequence[str], key: str, first: int) -> None:
        self._addresses = addresses
        self._metadata = bearer(key)
        self._at = first
        self._ids = count(1)
        self._outbox: asyncio.Queue[trading_pb2.TradeRequest] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Sequence[Any]]] = {}
        self._due_s: dict[int, float] = {}
        self._runner = asyncio.create_task(self._run())

    @property
    def address(self) -> str:  # type: ignore[override]
        return self._addresses[self._at % len(self._addresses)]

    async def exchange(self, commands: Sequence[CommandMessage], timeout_s: float) -> Sequence[Any]:
        request = trading_pb2.TradeRequest(request_id=next(self._ids), commands=commands)
        self._due_s[request.request_id] = time.monotonic() + timeout_s
        answer = self._answers[request.request_id] = asyncio.get_running_loop().create_future()
        self._outbox.put_nowait(request)
        try:
            return await asyncio.wait_for(answer, timeout_s + ANSWER_GRACE_S)
        finally:
            del self._answers[request.request_id], self._due_s[request.request_id]

    async def _run(self) -> None:
        while True:
            async with grpc.aio.insecure_channel(self.address, CHANNEL_OPTIONS) as channel:
                sent: set[int] = set()
                call = trading_pb2_grpc.TradingServiceStub(channel).Trade(metadata=self._metadata)
                writer = asyncio.create_task(self._write(call, sent))
                try:
                    async for response in call:
                        answer = self._answers.get(response.request_id)
                        if answer is not None and not answer.done():
                            answer.set_result(response.results)
                except grpc.aio.AioRpcError as error:
                    broken = f"{error.code().name}: {error.details()}"
                else:
                    broken = "the stream ended"
                finally:
                    writer.cancel()
                    await asyncio.gather(writer, return_exceptions=True)
                for number in sent:
                    answer = self._answers.get(number)
                    if answer is not None and not answer.done():
                        answer.set_exception(ConnectionError(broken))
            self._at += 1
            await asyncio.sleep(0.05)

    async def _write(self, call: Any, sent: set[int]) -> None:
        while True:
            request = await self._outbox.get()
            answer = self._answers.get(request.request_id)
            if answer is None or answer.done():
                continue
            remaining_ms = int((self._due_s[request.request_id] - time.monotonic()) * 1_000)
            if remaining_ms <= 0:
                answer.set_exception(NotExecuted("not sent: no connection until the deadline"))
                continue
            request.deadline_ms = remaining_ms
            sent.add(request.request_id)
            await call.write(request)

    async def close(self) -> None:
        self._runner.cancel()
        await asyncio.gather(self._runner, return_exceptions=True)


class TradingClient:
    """One trader's process of sending, with its log."""

    def __init__(self, plan: LoadPlan, trader: Trader, log: ClientLog, sender: Sender) -> None:
        self._plan = plan
        self._flow = Flow(plan.seed, trader.name, list(plan.markets))
        self._log = log
        self._sender = sender
        self._asker = AsyncClient(plan.addresses, trader.key, timeout=ASK_TIMEOUT_S)
        self._metadata = bearer(trader.key)
        self._messages = count(1)
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def last_ids(self) -> list[str]:
        return self._flow.last_ids

    async def run(self, start_s: float, stop: asyncio.Event) -> None:
        """Send until stopped, then wait until everything has its outcome; last of all send the last message."""
        plan = self._plan
        period_s = plan.commands_per_message * len(plan.traders) / plan.commands_per_s
        for n in count():
            due_s = start_s + n * period_s
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                try:
                    async with asyncio.timeout(wait_s):
                        await stop.wait()
                except TimeoutError:
                    pass
            if stop.is_set():
                break
            self._spawn(self._flow.message(plan.commands_per_message), due_s)
            if wait_s <= 0:
                await asyncio.sleep(0)  # behind: let answers in, too
        for commands in ([], self._flow.last_message()):
            if commands:
                self._spawn(commands, time.monotonic())
            while self._under_way:
                await asyncio.wait(self._under_way)
        await self._sender.close()
        await self._asker.aclose()
        self._log.close()

    def _spawn(self, commands: Sequence[CommandMessage], due_s: float) -> None:
        task = asyncio.create_task(self._send(commands, due_s))
        self._under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _send(self, commands: Sequence[CommandMessage], due_s: float) -> None:
        message = next(self._messages)
        timeout_s = self._plan.deadline_ms / 1_000
        until_s = time.monotonic() + timeout_s
        stamp = {"due": int(due_s * 1e9), "until": int(until_s * 1e9), "m": message}
        for i, command in enumerate(commands):
            self._log.write("send", **stamp, i=i, **fields_of_command(command), gw=self._sender.address)
        outcome, why = UNKNOWN, ""
        results: Sequence[Any] = ()
        try:
            results = await self._sender.exchange(commands, timeout_s)
            if len(results) != len(commands):
                results, why = (), f"{len(commands)} commands were answered by {len(results)} results"
        except NotExecuted as error:
            outcome, why = REJECTED, repr(error)[:200]
        except (EvenkeelError, ConnectionError, TimeoutError) as error:
            why = repr(error)[:200]
        unknown: list[CommandMessage] = []
        for i, command in enumerate(commands):
            content = fields_of_command(command)
            named = {"m": message, "i": i, "k": content["k"], "id": content["id"], "sym": content["sym"]}
            told = fields_of_result(results[i]) if results else {"o": outcome, "why": why}
            self._log.write("out", **named, **told, gw=self._sender.address)
            if told["o"] not in (ACKNOWLEDGED, REJECTED) and content["k"] == "place":
                unknown.append(command)
        for command in unknown:
            await self._settle(command, until_s)

    async def _settle(self, command: CommandMessage, until_s: float) -> None:
        """Find out what became of an order, and send it again if it never was."""
        await asyncio.sleep(max(until_s + SETTLE_AFTER_S - time.monotonic(), 0))
        place = command.place
        while True:
            try:
                order = await self._asker.get_order(place.instrument, client_order_id=place.client_order_id)
            except NotFound:
                self._log.write("order", id=place.client_order_id, sym=place.instrument, found=False)
                self._spawn([command], time.monotonic())
                return
            except EvenkeelError:
                await asyncio.sleep(0.2)
                continue
            found = {"oid": order.order_id, "st": int(order.status), "rej": int(order.reject_reason)}
            self._log.write("order", id=place.client_order_id, sym=place.instrument, found=True, **found)
            return
