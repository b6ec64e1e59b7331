"""The connection of a `nats` journal: requests that either are answered, are refused, or stay open.

It hides the event loop: nats-py runs in a thread of its own, and every method here blocks and may be called from any
other thread. Nothing is interpreted here but the servers' protocol.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, TypeVar

import nats
import nats.errors
import structlog
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from exchange.runtime.journal.nats_settings import NatsSettings

HEADER_BYTES_MAX = 512
"""What the headers of a publish take at most; they count into the servers' `max_payload`."""
RETRY_INTERVAL_S = 0.05
BATCH_MESSAGES_MAX = 512
BATCH_BYTES_MAX = 4 << 20
_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_NOT_FOUND = 10037
_STREAM_NOT_FOUND = 10059
# An idle connection that went dead is noticed within about 3 s, and another server is tried.
_PING_INTERVAL_S = 1
_PINGS_OUTSTANDING_MAX = 2
_RECONNECT_WAIT_S = 0.1
_CLOSE_LIMIT_S = 1.0
_PENDING_BYTES_MAX = 64 << 20

_log = structlog.get_logger()
_T = TypeVar("_T")


class Unanswered(Exception):
    """No answer came. `was_sent`: it may have been carried out all the same, or may still be."""

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class Refused(Exception):
    """The servers answered with an error; nothing was done."""

    def __init__(self, description: str, code: int) -> None:
        super().__init__(f"{description} (NATS error {code})")
        self.code = code


class WrongLastSequence(Refused):
    """The stream, or the fence, has gone on since; or a message before this one is still on its way in."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of the stream."""

    sequence: int
    subject: str
    data: bytes


@dataclass(slots=True)
class _Batch:
    """Messages that were asked for, and whether all of them are there."""

    messages: list[Stored]
    end: asyncio.Future[None]


class NatsLink:
    """One connection to one of the servers, for one stream."""

    def __init__(self, settings: NatsSettings, name: str, stream: str) -> None:
        self._settings = settings
        self._name = name
        self._stream = stream
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._inbox = ""
        self._batches: dict[str, _Batch] = {}
        self._tokens = itertools.count()

    def now_s(self) -> float:
        """Return the time by which waiting for the servers is measured."""
        return time.monotonic()

    def pause(self) -> None:
        """Wait a little before asking again."""
        time.sleep(RETRY_INTERVAL_S)

    def open(self) -> None:
        """Connect to any of the servers; nothing if that was done. Raises `Unanswered`."""
        if self._loop is None:
            self._loop = uvloop.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name=f"nats {self._stream}", daemon=True)
            self._thread.start()
        if self._client is None:
            try:
                self._client = self._run(self._connect())
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let go of the connection and its thread. Closing twice is allowed."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        client, self._client = self._client, None
        try:
            if client is not None:
                self._run(self._disconnect(client))
        except Unanswered:
            pass  # it is gone with its loop
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self._client is not None and self._client.is_connected

    @property
    def message_bytes_max(self) -> int:
        """The largest message that the servers take, without headers."""
        return self._connected().max_payload - HEADER_BYTES_MAX

    @property
    def server_name(self) -> str:
        """The server that this is connected to."""
        return str(self._connected()._server_info.get("server_name", ""))

    @property
    def server_version(self) -> str:
        """That server's version."""
        return str(self._connected()._server_info.get("version", ""))

    def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        """Store a message and return its sequence, once it is on the disks of a majority.

        Raises `WrongLastSequence`, `Refused` or `Unanswered`.
        """
        headers = {**headers, "Nats-Expected-Stream": self._stream}
        answer = self._run(self._request(subject, data, headers))
        return int(_read(answer)["seq"])

    def last(self, subject: str) -> Stored | None:
        """Return the leader's last message of the subject, if it has one. As the two below, raises `Unanswered`."""
        return self._get({"last_by_subj": subject})

    def first(self, subject: str) -> Stored | None:
        """Return the leader's first message of the subject, if it has one."""
        return self._get({"seq": 1, "next_by_subj": subject})

    def at(self, sequence: int) -> Stored | None:
        """Return the leader's message at that place, if it has one."""
        return self._get({"seq": sequence})

    def batch(self, from_sequence: int) -> list[Stored]:
        """Return some of the messages from there on, as any of the servers has them, in order; [] if it has none."""
        return self._run(self._batch(from_sequence))

    def any_copy(self, sequence: int) -> Stored | None:
        """Return the message at that place as some server has it, another one each time; None if it does not."""
        request = json.dumps({"seq": sequence}).encode()
        answer = self._run(self._request(f"$JS.API.DIRECT.GET.{self._stream}", request))
        return _read_direct(answer)

    def purge(self, subject: str, before_sequence: int) -> None:
        """Remove the messages of the subject before `before_sequence`. Raises `Unanswered` or `Refused`."""
        self._api(f"STREAM.PURGE.{self._stream}", {"filter": subject, "seq": before_sequence})

    def stream_info(self) -> dict[str, Any] | None:
        """Return what the servers say about the stream; None if there is none."""
        try:
            return self._api(f"STREAM.INFO.{self._stream}", {})
        except Refused as refused:
            if refused.code == _STREAM_NOT_FOUND:
                return None
            raise

    def create_stream(self, config: dict[str, Any]) -> dict[str, Any]:
        """Make the stream; nothing if there is one that is the same. Raises `Refused` or `Unanswered`."""
        return self._api(f"STREAM.CREATE.{self._stream}", config | {"name": self._stream})

    # ---------------------------------------------------------------- in the caller's thread

    def _connected(self) -> Client:
        if self._client is None:
            raise Unanswered("the connection is closed", was_sent=False)
        return self._client

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            work.close()
            raise Unanswered("the connection is closed", was_sent=False)
        # Each piece of work has a time limit of its own; this one is for a loop that hangs.
        limit_s = self._settings.try_timeout_s + self._settings.connect_timeout_s * (1 + len(self._settings.servers))
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(limit_s + 5)
        except FutureTimeoutError:
            future.cancel()
            raise Unanswered("no answer in time", was_sent=True) from None

    def _get(self, request: dict[str, Any]) -> Stored | None:
        try:
            message = self._api(f"STREAM.MSG.GET.{self._stream}", request)["message"]
        except Refused as refused:
            if refused.code == _NOT_FOUND:
                return None
            raise
        return Stored(int(message["seq"]), message["subject"], base64.b64decode(message.get("data", "")))

    def _api(self, subject: str, request: dict[str, Any]) -> dict[str, Any]:
        return _read(self._run(self._request(f"$JS.API.{subject}", json.dumps(request).encode())))

    # ---------------------------------------------------------------- in the loop's thread

    async def _connect(self) -> Client:
        settings = self._settings
        settings.check_files()
        tls = settings.tls()
        client = Client()
        try:
            async with asyncio.timeout(settings.connect_timeout_s * len(settings.servers)):
                await client.connect(
                    servers=list(settings.servers),
                    name=self._name,
                    error_cb=self._on_error,
                    tls=tls,
                    user=settings.user,
                    password=settings.password,
                    token=settings.token,
                    user_credentials=None if settings.credentials_file is None else str(settings.credentials_file),
                    connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type]
                    reconnect_time_wait=_RECONNECT_WAIT_S,  # type: ignore[arg-type]
                    max_reconnect_attempts=-1,
                    ping_interval=_PING_INTERVAL_S,
                    max_outstanding_pings=_PINGS_OUTSTANDING_MAX,
                )
                # One for all batches: subscribing for each would tell every server of the cluster each time.
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.*", cb=self._take, pending_bytes_limit=_PENDING_BYTES_MAX)
        except ModuleNotFoundError as error:
            raise Unanswered(f"credentials_file needs nkeys: pip install nkeys ({error})", was_sent=False) from error
        except (OSError, nats.errors.Error, TimeoutError) as error:
            why = client.last_error or error
            await self._disconnect(client)
            raise Unanswered(
                f"could not connect to any of {', '.join(settings.servers)}: {type(why).__name__}: {why}",
                was_sent=False,
            ) from error
        return client

    async def _live(self) -> Client:
        """Return the client; a new one if it was closed for good, as nats-py does when a server refuses it once."""
        client = self._connected()
        if not client.is_closed:
            return client
        async with self._connecting:
            if self._client is client:
                self._client = await self._connect()
        return self._connected()

    async def _disconnect(self, client: Client) -> None:
        try:
            # Closing a TLS connection that the server has dropped may wait for an answer for ever.
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await client.close()
        except (OSError, nats.errors.Error, TimeoutError) as error:
            _log.info("nats.not_closed", connection=self._name, error=f"{type(error).__name__}: {error}")

    async def _on_error(self, error: Exception) -> None:
        _log.info("nats.error", connection=self._name, error=f"{type(error).__name__}: {error}")

    async def _request(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Msg:
        client = await self._live()
        if not client.is_connected:
            # nats-py would keep it and send it whenever a connection is back.
            raise Unanswered("not connected to any server", was_sent=False)
        try:
            return await client.request(subject, data, timeout=self._settings.try_timeout_s, headers=headers)
        except nats.errors.NoRespondersError:
            raise Unanswered("no server answers for the stream now", was_sent=False) from None
        except (OSError, nats.errors.Error, TimeoutError, asyncio.CancelledError) as error:
            raise Unanswered(f"{type(error).__name__}: {error}", was_sent=True) from error

    async def _batch(self, from_sequence: int) -> list[Stored]:
        client = await self._live()
        batch = _Batch([], asyncio.get_running_loop().create_future())
        token = str(next(self._tokens))
        self._batches[token] = batch
        request = {"seq": from_sequence, "batch": BATCH_MESSAGES_MAX, "max_bytes": BATCH_BYTES_MAX}
        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        try:
            await client.publish(subject, json.dumps(request).encode(), reply=f"{self._inbox}.{token}")
            async with asyncio.timeout(self._settings.try_timeout_s):
                await batch.end
        except (OSError, nats.errors.Error, TimeoutError) as error:
            raise Unanswered(f"{type(error).__name__}: {error}", was_sent=False) from error
        finally:
            del self._batches[token]
        return batch.messages

    async def _take(self, message: Msg) -> None:
        """Add a message to the batch that it answers; one that comes too late answers none."""
        batch = self._batches.get(message.subject.rpartition(".")[2])
        if batch is None or batch.end.done():
            return
        try:
            stored = _read_direct(message)
        except Unanswered as unanswered:
            batch.end.set_exception(unanswered)
            return
        if stored is None:
            batch.end.set_result(None)
        else:
            batch.messages.append(stored)


def _read(answer: Msg) -> dict[str, Any]:
    try:
        content = json.loads(answer.data)
    except ValueError:
        raise Unanswered("the answer is not JSON", was_sent=True) from None
    error = content.get("error")
    if error is None:
        return dict(content)
    code = int(error.get("err_code", 0))
    kind = WrongLastSequence if code in _WRONG_LAST_SEQUENCE else Refused
    raise kind(str(error.get("description", "no reason given")), code)


def _read_direct(answer: Msg) -> Stored | None:
    """Return the message of a direct get; None if there is none there, or at the end of a batch."""
    headers = answer.headers or {}
    status = headers.get("Status")
    if status is None:
        return Stored(int(headers["Nats-Sequence"]), headers["Nats-Subject"], answer.data)
    if status in ("204", "404"):
        return None
    raise Unanswered(f"the stream cannot be read now: status {status}", was_sent=False)
