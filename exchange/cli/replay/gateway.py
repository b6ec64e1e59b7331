"""`--exchange`: a recording through gRPC on a running exchange.

All commands go in batches over one Trade stream with an operator's key, each on behalf of the account of its side, so
that the exchange executes them in the order of the recording. What came of them is put together from the answers, the
execution streams of the two accounts (trades) and the order book stream (best prices after each command).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine

import grpc

from exchange.cli.books import audit_books, check_books
from exchange.cli.errors import CommandFailed
from exchange.cli.replay.join import Join
from exchange.cli.replay.market import Market, last_trade_id, mark_end, open_market, read_end_state
from exchange.cli.replay.outcome import Answer, Outcome
from exchange.cli.replay.recording import Recording, ReplayCommand
from exchange.cli.replay.translate import Translator, encode
from exchange.client import AsyncClient
from exchange.v1 import (
    market_data_pb2,
    market_data_pb2_grpc,
    trading_pb2,
    trading_pb2_grpc,
    types_pb2,
)

COMMANDS_PER_BATCH = 200
BATCHES_IN_FLIGHT = 1
"""A recording is entered in its order: the cancels of a message that waits may go before orders that wait longer."""
COMMANDS_UNSEEN_MAX = 2_000
"""Commands that are answered but not yet seen in the streams. With those in flight, less than a gateway keeps for a
reader before it merges changes."""
DEADLINE_MS = 5_000
SILENCE_S = 60.0
_BANDS_OF_THE_MOMENT = 500
"""Reject reasons from here on say nothing of the order, but that the exchange would not take it now."""


class _Watch:
    """A join that is fed by streams, and a way to wait for what they bring."""

    def __init__(self, symbol: str) -> None:
        self.join = Join(symbol)
        self._broken = ""
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    def check(self) -> None:
        """Raise `CommandFailed` if a stream has ended."""
        if self._broken:
            raise CommandFailed("STREAM_BROKEN", self._broken)

    async def until(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until something is seen. Raises `CommandFailed` if a stream ends, or all are silent for a minute."""
        while not seen():
            self.check()
            self._changed.clear()
            try:
                async with asyncio.timeout(SILENCE_S):
                    await self._changed.wait()
            except TimeoutError:
                raise CommandFailed("STREAM_SILENT", f"waited {SILENCE_S:.0f} s for {what}") from None

    async def run(self, name: str, stream: Coroutine[None, None, None]) -> None:
        """Run a stream, and make it known if it ends."""
        try:
            await stream
            self._broken = f"{name}: the exchange ended the stream"
        except grpc.aio.AioRpcError as error:
            self._broken = f"{name}: {error.code().name}: {error.details()}"
        finally:
            self.changed()

    async def executions(self, market: Market, side: int, ready: asyncio.Event) -> None:
        stub = trading_pb2_grpc.TradingServiceStub(market.channel)
        request = trading_pb2.StreamExecutionsRequest()
        async for response in stub.StreamExecutions(request, metadata=market.owners[side].metadata):
            ready.set()
            self.join.add_executions(side, response.executions)
            self.changed()

    async def book(self, market: Market, ready: asyncio.Event) -> None:
        stub = market_data_pb2_grpc.MarketDataServiceStub(market.channel)
        request = market_data_pb2.StreamOrderBookRequest(instrument=market.symbol, depth=1)
        async for response in stub.StreamOrderBook(request):
            self.join.add_book(response.updates)
            ready.set()
            self.changed()


async def replay_exchange(
    recording: Recording,
    address: str,
    key: str,
    symbol: str,
    delay_s: Callable[[ReplayCommand], float],
    progress: Callable[[int], None],
) -> Outcome:
    """Enter a recording on the exchange at `address` with an operator's key, in an instrument of its own.

    Raises:
        CommandFailed: a command was not taken, or a stream broke.
        grpc.aio.AioRpcError: a call failed.
    """
    async with grpc.aio.insecure_channel(address) as channel, open_market(channel, key, recording, symbol) as market:
        watch = _Watch(symbol)
        ready = [asyncio.Event() for _ in range(3)]
        tasks = [
            asyncio.create_task(watch.run("executions of the buyer", watch.executions(market, 1, ready[0]))),
            asyncio.create_task(watch.run("executions of the seller", watch.executions(market, 2, ready[1]))),
            asyncio.create_task(watch.run("order book", watch.book(market, ready[2]))),
        ]
        for event, task in zip(ready, tasks, strict=True):
            task.add_done_callback(_setter(event))
        try:
            for event in ready:
                await asyncio.wait_for(event.wait(), SILENCE_S)
            watch.check()
            outcome = Outcome(symbol)
            last_sequences = await _Entry(market, recording, watch, outcome, delay_s, progress).run()
            await _finish(market, watch, outcome, last_sequences)
            outcome.fault = outcome.fault or await _check_money(market, address, key)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return outcome


async def _check_money(market: Market, address: str, key: str) -> str:
    """Return what is wrong with the money of the two accounts, which traded with each other alone, and with that of the
    whole exchange; "" if nothing is.
    """
    async with AsyncClient(address, key, timeout=SILENCE_S) as operator:
        faults = await check_books(operator, list(market.accounts.values()))
        _, broken = await audit_books(operator)
        return "; ".join(faults + broken)


def _setter(event: asyncio.Event) -> Callable[[object], None]:
    return lambda _: event.set()


async def _finish(market: Market, watch: _Watch, outcome: Outcome, last_sequences: dict[int, int]) -> None:
    """Wait until the streams have brought all, and read how the book ended."""
    join = watch.join
    await watch.until(lambda: join.is_complete(last_sequences, 0), "the last execution")
    trades = await last_trade_id(market)
    await watch.until(lambda: join.is_complete(last_sequences, trades), f"both sides of {trades} trades")
    await read_end_state(market, outcome)
    end = await mark_end(market, outcome)
    await watch.until(lambda: join.book_sequence >= end, "the last change of the order book")
    outcome.trades, outcome.best, outcome.cancelled = join.trades(), join.best, join.cancelled
    outcome.fault = join.check(end)


class _Entry:
    """Sending the commands of a recording, and taking their answers."""

    def __init__(
        self,
        market: Market,
        recording: Recording,
        watch: _Watch,
        outcome: Outcome,
        delay_s: Callable[[ReplayCommand], float],
        progress: Callable[[int], None],
    ) -> None:
        self._market = market
        self._commands = recording.commands
        self._watch = watch
        self._outcome = outcome
        self._delay_s = delay_s
        self._progress = progress
        self._call = trading_pb2_grpc.TradingServiceStub(market.channel).Trade(metadata=market.operator)
        self._room = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self._sides: list[int] = []
        self._sent_s: dict[int, float] = {}
        self._owed: deque[int] = deque()
        self._early: dict[int, trading_pb2.TradeResponse] = {}
        """Answers that came before those of batches that were sent earlier."""

    async def run(self) -> dict[int, int]:
        """Enter everything; return the last sequence that each side's executions must come to."""
        started_s = time.perf_counter()
        sender = asyncio.create_task(self._send())
        try:
            async for response in self._answers():
                self._take(response)
                await self._keep_pace()
                self._room.release()
            # The exchange ends the stream after the last batch, unless sending failed.
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._call.cancel()
        self._outcome.seconds = time.perf_counter() - started_s
        answers = self._outcome.answers
        if len(answers) != len(self._commands):
            message = f"{len(answers)} of {len(self._commands)} commands were answered"
            raise CommandFailed("NOT_ENTERED", message)
        accepted = zip(self._sides, answers, strict=True)
        # Ascending, so that the last of each side stays.
        return {side: answer.sequence for side, answer in accepted if not answer.rejected}

    async def _send(self) -> None:
        translate = Translator(self._market.symbol)
        accounts = self._market.accounts
        batch: list[trading_pb2.Command] = []
        try:
            for command in self._commands:
                delay = self._delay_s(command)
                if batch and (delay > 0 or len(batch) == COMMANDS_PER_BATCH):
                    await self._send_batch(batch)
                    batch = []
                if delay > 0:
                    await asyncio.sleep(delay)
                translated = translate(command)
                self._sides.append(translated.account)
                batch.append(encode(translated, accounts))
            if batch:
                await self._send_batch(batch)
        finally:
            if not self._call.done():
                await self._call.done_writing()

    async def _send_batch(self, batch: list[trading_pb2.Command]) -> None:
        await self._room.acquire()
        request_id = len(self._sides)
        self._sent_s[request_id] = time.perf_counter()
        self._owed.append(request_id)
        await self._call.write(trading_pb2.TradeRequest(request_id=request_id, commands=batch, deadline_ms=DEADLINE_MS))

    async def _answers(self) -> AsyncIterator[trading_pb2.TradeResponse]:
        """Yield the answers until the stream ends; fail if one is owed for too long."""
        while True:
            reading = asyncio.ensure_future(self._call.read())
            # Not `wait_for`, which would cancel the read, and with it the whole call.
            while not (await asyncio.wait({reading}, timeout=SILENCE_S))[0]:
                if self._sent_s:
                    reading.cancel()
                    raise CommandFailed("NO_ANSWER", f"waited {SILENCE_S:.0f} s for the answer to a batch")
            response = reading.result()
            if not isinstance(response, trading_pb2.TradeResponse):
                return
            if not response.draining:
                yield response

    def _take(self, response: trading_pb2.TradeResponse) -> None:
        sent_s = self._sent_s.pop(response.request_id)
        self._outcome.latencies_ms.append((time.perf_counter() - sent_s) * 1_000)
        self._early[response.request_id] = response
        while self._owed and self._owed[0] in self._early:
            self._take_next(self._early.pop(self._owed.popleft()))

    def _take_next(self, response: trading_pb2.TradeResponse) -> None:
        outcome = self._outcome
        for result in response.results:
            reason = result.reject_reason
            if result.outcome == types_pb2.OUTCOME_UNKNOWN or reason >= _BANDS_OF_THE_MOMENT:
                name = types_pb2.RejectReason.Name(reason).removeprefix("REJECT_REASON_")
                command = self._commands[len(outcome.answers)]
                raise CommandFailed("NOT_ENTERED", f"{command.kind.name} of order {command.order}: {name}")
            outcome.answers.append(Answer(result.sequence, result.status, bool(reason)))
        self._progress(len(outcome.answers))

    async def _keep_pace(self) -> None:
        """Wait until the streams are not too far behind the answers."""
        answers = self._outcome.answers
        index = len(answers) - COMMANDS_UNSEEN_MAX - 1
        while index >= 0 and answers[index].rejected:
            index -= 1  # what was rejected leaves no trace in the streams
        if index < 0:
            return
        sequence = answers[index].sequence
        await self._watch.until(lambda: self._watch.join.has_reached(sequence), f"the events of {sequence}")
