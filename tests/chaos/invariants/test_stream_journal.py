"""Streams of `nats` journals are copied as they are, and the reader finds what is wrong in a copy."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig

from chaos.invariants.copier import StreamCopier
from chaos.invariants.findings import Findings
from chaos.invariants.journal_stream import Message, StreamCopy, read_stream_journal
from exchange.runtime.journal.record import crc32c, encode, machine_identity

MACHINE = "shard-0"
IDENTITY = machine_identity(MACHINE)


def fence(ordinal: int, previous: int) -> bytes:
    fields = struct.pack("<4sHHQQQ16sI", b"EKJF", 1, 0, IDENTITY, ordinal, previous, bytes(16), 0)
    return fields + struct.pack("<I", crc32c(fields))


def history() -> list[Message]:
    """Two epochs of three records each, the second fence being message 5."""
    messages = [Message(1, True, fence(1, 0))]
    checksum = 0
    for sequence in range(1, 7):
        if sequence == 4:
            messages.append(Message(5, True, fence(2, 1)))
        epoch = 1 if sequence < 4 else 5
        data = encode(IDENTITY, epoch, sequence, checksum, b"record %d" % sequence)
        checksum = struct.unpack_from("<I", data, 44)[0]
        messages.append(Message(len(messages) + 1, False, data))
    return messages


def read(directory: Path, messages: list[Message]) -> tuple[list[bytes], Findings]:
    copy = StreamCopy(directory)
    for message in messages:
        copy.add(message)
    copy.close()
    findings = Findings()
    return [record.payload for record in read_stream_journal(directory, MACHINE, findings)], findings


def test_records_of_all_epochs_are_read_in_order(tmp_path: Path) -> None:
    payloads, findings = read(tmp_path, history())
    assert payloads == [b"record %d" % n for n in range(1, 7)]
    assert not findings.violations, str(findings)


def test_a_message_that_is_missing_is_found(tmp_path: Path) -> None:
    messages = history()
    del messages[2]
    assert read(tmp_path, messages)[1].found["I7"]


def test_a_record_of_an_old_epoch_behind_a_new_fence_is_found(tmp_path: Path) -> None:
    messages = history()[:5]
    before = struct.unpack_from("<I", messages[3].data, 44)[0]
    messages.append(Message(6, False, encode(IDENTITY, 1, 4, before, b"of a zombie")))
    assert "is of epoch 1, and stands behind 5" in str(read(tmp_path, messages)[1])


def test_a_fence_that_another_one_was_written_over_is_found(tmp_path: Path) -> None:
    messages = history()
    messages[4] = Message(5, True, fence(2, 3))
    assert "expected fence 2 after 1" in str(read(tmp_path, messages)[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    binary = Path(sys.executable).parent / "nats-server"
    ports = tmp_path / "ports"
    ports.mkdir()
    command = [binary, "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", tmp_path / "store", "--ports_file_dir", ports]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL) as process:
        try:
            give_up_s = time.monotonic() + 30
            found: list[str] = []
            while not found and time.monotonic() < give_up_s:
                texts = [path.read_text() for path in ports.glob("*.ports")]
                found = [text.split('"nats":["')[1].split('"')[0] for text in texts if '"nats":["' in text]
            yield found[0]
        finally:
            process.terminate()


async def test_a_stream_is_copied_though_its_beginning_is_let_go_of(server: str, tmp_path: Path) -> None:
    client = await nats.connect(server)
    context = client.jetstream()
    await context.add_stream(StreamConfig(name=f"j-{MACHINE}", subjects=[f"j.{MACHINE}.d", f"j.{MACHINE}.fence"]))

    async def publish(messages: list[Message]) -> None:
        for message in messages:
            await context.publish(f"j.{MACHINE}.{'fence' if message.is_fence else 'd'}", message.data)

    copier = StreamCopier([server], {MACHINE: tmp_path / "copy"})
    messages = history()
    await publish(messages[:4])
    copying = asyncio.create_task(copier.run())
    while copier.last(MACHINE) < 4:
        await asyncio.sleep(0.01)
    await context.purge_stream(f"j-{MACHINE}", seq=4)
    await publish(messages[4:])
    copying.cancel()
    await asyncio.gather(copying, return_exceptions=True)
    await copier.finish()
    await client.close()
    findings = Findings()
    payloads = [record.payload for record in read_stream_journal(tmp_path / "copy", MACHINE, findings)]
    assert payloads == [b"record %d" % n for n in range(1, 7)]
    assert not findings.violations, str(findings)
