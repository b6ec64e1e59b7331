"""The host makes a machine durable: mailbox, journal, apply, feed.

One record is in flight at a time; what arrives meanwhile makes the next one. Nothing is answered before its record is
durable, and nothing is applied before either. A host may begin as a standby, which only follows the journal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from enum import IntEnum
from typing import Any

import structlog

from exchange.engine.words import RejectReason
from exchange.runtime.collector import collector_spared
from exchange.runtime.journal import (
    Journal,
    JournalCorrupt,
    JournalFenced,
    JournalLocked,
    JournalRecordTooLarge,
    JournalUnavailable,
)
from exchange.runtime.machine import MachineType
from exchange.runtime.mailbox import Letter, Mailbox, answer_alike, refuse
from exchange.runtime.messages import LinkBatch, RecordPayload, ReplyStatus, pack_record, unpack_record
from exchange.runtime.metering import Metering, count_trading, is_all_shed
from exchange.runtime.recovery import (
    LinkState,
    Recovered,
    answer_record,
    apply_record,
    decode_record,
    recover,
    take_snapshot,
)
from exchange.runtime.snapshot import SnapshotBusy, SnapshotStore, SnapshotUnavailable
from exchange.runtime.snapshotter import Snapshotter
from exchange.runtime.standby import Standby
from exchange.runtime.transit import Transit
from exchange.settings import Settings

ANSWER_STEPS = 4
"""Of the event loop, in which an answer is on its way out of this process, before readers of the feed get theirs."""
SPARED_BYTES_MIN = 4 << 10
"""Of records of some 100 commands: for less, to keep the collector off them takes more than it saves."""
REOPEN_INTERVAL_S = 0.5
LOCK_WAIT_S = 2.0
"""How long a journal may be locked by a process that was killed; the kernel lets go of it within milliseconds."""
LOCK_RETRY_S = 0.005

_log = structlog.get_logger()


class NotPrimary(Exception):
    """This host does not write the journal, or not any more; whether the batch took effect, the one that does knows."""

    code = "NOT_PRIMARY"


class Role(IntEnum):
    STANDBY = 1
    """Follows the journal."""
    PRIMARY = 2
    """Writes the journal."""
    RETIRED = 3
    """Has handed over, or was fenced: it stops for good."""


class Host:
    """Runs one machine. `start` recovers it and takes the journal; then `submit` is how commands come in.

    Or else `follow` makes it a standby, which `promote` makes the primary. `hand_over` ends a primary so that a standby
    can go on where it stopped.

    `end_holder` ends the process that locks the journal, if that is one which may be ended: a journal in files has no
    other fence. `clock_ns` is the wall clock (ns since the epoch), `monotonic_s` measures waiting. All methods belong
    to one event loop; the journal is written from a thread of its own, or from `writer`, which must run one thing at a
    time.
    """

    def __init__(
        self,
        kind: MachineType,
        journal: Journal,
        snapshots: SnapshotStore,
        *,
        settings: Settings | None = None,
        snapshot_every_commands: int = 1 << 62,
        end_holder: Callable[[int], Awaitable[None]] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
        writer: Executor | None = None,
    ) -> None:
        self.kind = kind
        self.journal = journal
        self.snapshots = snapshots
        self.role = Role.STANDBY
        self.epoch = 0
        self.failure: str | None = None
        """Why nothing can be journaled now."""
        self.fenced = asyncio.Event()
        """Set for good once another writer has taken over."""
        self.broken: BaseException | None = None
        """What ended the loop although it should have gone on: a bug. The process must be replaced."""
        self._unwritten_since_s = 0.0
        """Since when the journal has not taken what it was given; 0: it has."""
        self.is_new = False
        """Whether its machine had no history when it began to serve."""
        self.standby: Standby | None = None
        self._end_holder = end_holder
        self.snapshotter = Snapshotter(kind, snapshots, snapshot_every_commands)
        self.on_applied: Callable[[], None] | None = None
        """Called after each record."""
        self._clock_ns = clock_ns
        self._monotonic_s = monotonic_s
        self._writer = writer or ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._mailbox = Mailbox()
        self._transit = Transit()
        self.metering = Metering(settings or Settings(), monotonic_s)
        # Batches of a record that may yet turn out to be in the journal: sent again, they are not refused either.
        self._in_doubt: dict[str, tuple[int, int]] = {}
        self._at = Recovered(kind.new())
        self._task: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._promotion: asyncio.Task[None] | None = None
        self._stopping = False
        self._is_handing_over = False

    @property
    def at(self) -> Recovered:
        return self._at if self.standby is None else self.standby.at

    @property
    def journal_lag_ms(self) -> float:
        """How long the record that is being written has been under way."""
        since_s = self._unwritten_since_s
        return (self._monotonic_s() - since_s) * 1_000 if since_s else 0.0

    @property
    def machine(self) -> Any:
        return self.at.machine

    def apply_settings(self, settings: Settings) -> None:
        """Go on with other settings."""
        self.metering.apply_settings(settings)

    async def start(self) -> None:
        """Take the journal, which fences every writer before, recover the machine, and begin to serve.

        Raises what `recover` and `Journal.acquire` raise.
        """
        self.epoch = await self._acquire()
        self._at = await self._in_writer(lambda: recover(self.kind, self.journal, self.snapshots))
        await self._serve(begin=True)

    async def follow(self, fetch_snapshot: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Recover the machine as far as the newest snapshot has it, and follow whoever writes the journal.

        `fetch_snapshot` brings a newer one from the writer, where each node has its own. Raises what `load_latest`
        raises.
        """
        standby = Standby(self.kind, self.journal, self.snapshots, self._in_writer, self.snapshotter, fetch_snapshot)
        await standby.load()
        self.standby = standby
        self._following = asyncio.create_task(standby.run())
        self._following.add_done_callback(self._on_end)

    async def promote(self, *, begin: bool = True) -> None:
        """Fence the writer, apply what it has left in the journal, and serve. May be called again at any time.

        `begin`: journal what a host journals first after a start. A planned handover goes on as it was.
        """
        if self._promotion is None:
            self._promotion = asyncio.create_task(self._promote(begin=begin))
        promotion = self._promotion
        try:
            await asyncio.shield(promotion)
        finally:
            if promotion.done() and promotion.exception() is not None:
                self._promotion = None

    async def _promote(self, *, begin: bool) -> None:
        standby = self.standby
        if standby is None or self._following is None:
            raise NotPrimary(f"{self.journal.machine_name}: expected a standby, was {self.role.name}")
        standby.stop()
        self.epoch = await self._acquire()
        await self._following
        self._at = await standby.finish()
        self.standby = None
        await self._serve(begin=begin)

    async def _acquire(self) -> int:
        """Take the journal; who held it may be dying still."""
        give_up_s = self._monotonic_s() + LOCK_WAIT_S
        while True:
            try:
                epoch: int = await self._in_writer(self.journal.acquire)
                return epoch
            except JournalLocked as error:
                if self._monotonic_s() > give_up_s:
                    raise
                if self._end_holder is not None and error.holder_pid:
                    await self._end_holder(error.holder_pid)
                await asyncio.sleep(LOCK_RETRY_S)

    async def _serve(self, *, begin: bool) -> None:
        self.role = Role.PRIMARY
        self.snapshotter.passes(self.at)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._on_end)
        first = self.kind.first_segment()
        self.is_new = begin and self.machine.sequence == 0
        if begin and first is not None:
            await self.submit(LinkBatch("", 0, 0, [first]))

    async def hand_over(self) -> int:
        """Finish the record in flight and let go of the journal; return the last record.

        What waits and what comes raises `NotPrimary`: its link keeps it for the host that takes over.
        """
        self._is_handing_over = self._stopping = True
        self._mailbox.arrived.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._in_writer(self.journal.close)
        finally:
            # Who hears of it may take the journal, and would end whoever locks it still.
            self.role = Role.RETIRED
        return self.at.record

    async def submit(self, batch: LinkBatch) -> bytes:
        """Journal and apply a batch; return the packed replies to its segments.

        A batch that a link sends again gets the answer of the first time, at once or when it is there.
        """
        if self.role != Role.PRIMARY or self._is_handing_over:
            raise NotPrimary(f"{self.journal.machine_name}: {self.role.name.lower()}")
        if batch.link:
            done = self.at.links.get(batch.link)
            if done is not None and _is_old(batch, done):
                if (batch.incarnation, batch.n) == (done.incarnation, done.n):
                    return self.metering.tell(done.replies)
                return refuse(batch, RejectReason.MALFORMED, f"{batch.link} has gone on to {done.incarnation}.{done.n}")
            same = self._mailbox.same_as(batch)
            if same is not None:
                return await asyncio.shield(same.answer)
        is_in_doubt = self._in_doubt.get(batch.link) == (batch.incarnation, batch.n)
        status = ReplyStatus.UNKNOWN if is_in_doubt else ReplyStatus.REFUSED
        if self._stopping:
            return answer_alike(batch, status, RejectReason.SHARD_UNAVAILABLE, "stopped")
        if self.failure is not None:
            return answer_alike(batch, status, RejectReason.JOURNAL_UNAVAILABLE, self.failure)
        now_s = self._monotonic_s()
        # What it spent on its way counts towards its deadlines, as what it spends here does.
        waited_s = self._transit.waited_s(batch.link, batch.incarnation, batch.sent_s, now_s) if batch.sent_s else 0.0
        load = self.metering.load
        letter = Letter(self.metering.shed(batch, self._mailbox.commands), now_s - waited_s, load.busy_s)
        if is_all_shed(letter.batch) or not self._mailbox.put(letter):
            load.shed += letter.commands
            return answer_alike(batch, status, RejectReason.QUEUE_FULL, "the mailbox is full")
        return await asyncio.shield(letter.answer)

    def _trim(self) -> None:
        """Let go of the journal behind the older of the snapshots."""
        try:
            kept = self.snapshots.sequences
            if len(kept) > 1:
                self.journal.trim(kept[-1])
        except (JournalUnavailable, SnapshotUnavailable) as error:
            _log.warning("journal.not_trimmed", machine=self.journal.machine_name, error=str(error))

    async def stop(self) -> None:
        """Finish the record in flight, refuse the rest, write a snapshot, and let go of the journal."""
        self._stopping = True
        self._mailbox.arrived.set()
        if self.standby is not None:
            self.standby.stop()
        tasks = [task for task in (self._task, self._following) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.snapshotter.settle()
        try:
            if self.role == Role.PRIMARY and self.failure is None and self.broken is None:
                await self._in_writer(lambda: take_snapshot(self.kind, self.at, self.snapshots))
        except SnapshotBusy:
            pass  # the standby's of this moment is as good
        finally:
            await self._in_writer(self.journal.close)
            self._writer.shutdown()

    # ---------------------------------------------------------------- the loop

    async def _run(self) -> None:
        while not self._stopping:
            await self._wait_for_work()
            letters = self._take_letters()
            if letters and not self._stopping:
                is_large = sum(letter.size for letter in letters) >= SPARED_BYTES_MIN
                with collector_spared() if is_large else nullcontext():
                    await self._write(letters)
            else:
                self._leave(letters)
            if self.failure is not None:
                await self._reopen()
            if self.fenced.is_set():
                break
        self._leave(self._mailbox.take_all())

    def _leave(self, letters: list[Letter]) -> None:
        """Answer what will not be written here: only if nobody takes over, it is surely not executed."""
        if self._is_handing_over or self.fenced.is_set():
            for letter in letters:
                self._mailbox.answer(letter, NotPrimary(f"{self.journal.machine_name}: another writes the journal"))
        else:
            self._answer(letters, [refuse(x.batch, RejectReason.SHARD_UNAVAILABLE, "stopped") for x in letters])

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.broken = task.exception()
            self._stopping = True
            _log.error("host.broken", machine=self.journal.machine_name, error=repr(self.broken))
            self._mailbox.fail_all(RuntimeError(f"the host is broken: {self.broken!r}"))

    async def _wait_for_work(self) -> None:
        if self._mailbox or self._stopping:
            return
        self._mailbox.arrived.clear()
        due_ns = self.machine.next_timer_ns()
        timeout_s = None if due_ns is None else max((due_ns - self._clock_ns()) / 1e9, 0)
        try:
            async with asyncio.timeout(timeout_s):
                await self._mailbox.arrived.wait()
        except TimeoutError:
            pass

    def _take_letters(self) -> list[Letter]:
        """Return what makes the next record: the timers that are due, then the mailbox in order, up to the limit."""
        letters: list[Letter] = []
        due_ns = self.machine.next_timer_ns()
        tick = self.kind.tick()
        if tick is not None and due_ns is not None and due_ns <= self._clock_ns():
            letters.append(Letter(LinkBatch("", 0, 0, [tick]), self._monotonic_s()))
        return letters + self._mailbox.take()

    async def _write(self, letters: list[Letter]) -> None:
        """Journal one record, then apply it and answer."""
        now_s = self._monotonic_s()
        checks = self.metering.checks_deadlines
        batches = [letter.as_journaled(now_s) if checks else letter.batch for letter in letters]
        payload = RecordPayload(max(self._clock_ns(), self.machine.time_ns), batches)
        record = self.at.record + 1
        append = self._in_writer(lambda: self.journal.append(self.epoch, record, pack_record(payload)))
        self._unwritten_since_s = self._unwritten_since_s or now_s
        # The thread is in the kernel for most of it: read the commands meanwhile.
        writing = asyncio.ensure_future(append)
        await asyncio.sleep(0)
        decoding_since_s = self._monotonic_s()
        decoded = decode_record(self.kind, payload)
        busy_s = self._monotonic_s() - decoding_since_s
        try:
            await writing
        except JournalUnavailable as error:
            self.failure = str(error)
            _log.error("journal.unavailable", machine=self.journal.machine_name, error=str(error))
            status = ReplyStatus.REFUSED if error.surely_absent else ReplyStatus.UNKNOWN
            if not error.surely_absent:
                self._in_doubt = {x.batch.link: (x.batch.incarnation, x.batch.n) for x in letters if x.batch.link}
            reason = RejectReason.JOURNAL_UNAVAILABLE
            self._answer(letters, [answer_alike(letter.batch, status, reason, str(error)) for letter in letters])
            return
        except JournalRecordTooLarge as error:
            self._unwritten_since_s = 0.0
            self._answer(letters, [refuse(x.batch, RejectReason.MALFORMED, str(error)) for x in letters])
            return
        except (JournalFenced, JournalCorrupt) as error:
            _log.error("journal.fenced", machine=self.journal.machine_name, error=str(error))
            self.fenced.set()
            self.role = Role.RETIRED
            self._leave(letters)
            return
        self._unwritten_since_s = 0.0
        commands = count_trading(payload, decoded)
        await self.metering.serve(commands, now_s)
        applying_since_s = self._monotonic_s()
        answers = self._apply(record, self.epoch, payload, decoded)
        busy_s += self._monotonic_s() - applying_since_s
        self.metering.note_record(letters, batches, commands, busy_s)
        self._answer(letters, [self.metering.tell(a, x.busy_s) for a, x in zip(answers, letters, strict=True)])
        if self.on_applied is not None:
            self.on_applied()
        for _ in range(ANSWER_STEPS):
            await asyncio.sleep(0)
        self.at.feed.settle()
        if self.snapshotter.see(self.at):
            await self._in_writer(self._trim)

    def _apply(
        self, record: int, epoch: int, payload: RecordPayload, decoded: list[list[list[Any]]] | None = None
    ) -> list[bytes]:
        """Apply a record that is in the journal; return the answers to its batches."""
        decoded = decode_record(self.kind, payload) if decoded is None else decoded
        results = apply_record(self.kind, self.at, record, epoch, payload, decoded)
        return answer_record(self.kind, self.at, payload, decoded, results)

    def _answer(self, letters: list[Letter], answers: list[bytes]) -> None:
        for letter, answer in zip(letters, answers, strict=True):
            self._mailbox.answer(letter, answer)

    async def _reopen(self) -> None:
        """Try to bring the journal back; commands are refused until that works.

        A record whose outcome was unknown may have got in: it is applied now. Its commands were answered "unknown",
        and whoever sends them again gets what came of them.
        """
        while not self._stopping:
            try:
                self.epoch = await self._in_writer(self.journal.reopen)
                late = await self._in_writer(lambda: list(self.journal.read(self.at.record + 1)))
            except (JournalFenced, JournalCorrupt) as error:
                _log.error("journal.fenced", machine=self.journal.machine_name, error=str(error))
                self.fenced.set()
                self.role = Role.RETIRED
                return
            except JournalUnavailable as error:
                self.failure = str(error)
                rest = self._mailbox.take_all()
                refusals = [refuse(x.batch, RejectReason.JOURNAL_UNAVAILABLE, self.failure) for x in rest]
                self._answer(rest, refusals)
                await asyncio.sleep(REOPEN_INTERVAL_S)
            else:
                for record in late:
                    self._apply(record.sequence, record.epoch, unpack_record(record.payload))
                    self.at.feed.settle()
                    if self.on_applied is not None:
                        self.on_applied()
                self.failure = None
                self._in_doubt = {}
                _log.info("journal.reopened", machine=self.journal.machine_name)
                return

    async def _in_writer(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)


def _is_old(batch: LinkBatch, done: LinkState) -> bool:
    return (batch.incarnation, batch.n) <= (done.incarnation, done.n)
