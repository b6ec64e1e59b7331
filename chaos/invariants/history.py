"""The whole history of an exchange, also of what it lets go of: journals, and the snapshots with their hashes."""

from __future__ import annotations

import asyncio
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from chaos.invariants.copier import StreamCopier
from chaos.invariants.findings import Findings
from chaos.invariants.journal_file import RawRecord, read_file_journal
from chaos.invariants.journal_stream import read_stream_journal
from chaos.invariants.replay import HashClaim

TAKE_INTERVAL_S = 1.0
_SNAPSHOT_NAME = re.compile(r"(\d{20})-(\d{20})\.snapshot")
_SNAPSHOT = struct.Struct("<4sHHQQIQII")


class History(Protocol):
    """Gathers the history while the exchange runs; afterwards gives it to the checker."""

    async def run(self) -> None:
        """Gather until cancelled, often enough that nothing comes and goes in between."""
        ...

    async def finish(self) -> None:
        """Gather the rest, once nobody writes any more."""
        ...

    def records(self, machine: str, findings: Findings) -> Iterator[RawRecord]: ...

    def claims(self, machine: str) -> Iterator[HashClaim]:
        """Yield the hashes that snapshots claim."""
        ...


class FileHistory:
    """Hard links to every journal segment and snapshot that there ever was: they cost nothing, and grow with the files.

    `sources`: for each machine the directories that hold a `journal` or `snapshots` of it, on every node.
    """

    def __init__(self, directory: Path, sources: Mapping[str, Sequence[Path]]) -> None:
        self._directory = directory
        self._sources = sources

    async def run(self) -> None:
        while True:
            self.take()
            await asyncio.sleep(TAKE_INTERVAL_S)

    async def finish(self) -> None:
        self.take()

    def take(self) -> None:
        for machine, sources in self._sources.items():
            for source in sources:
                self._link(machine, source, "journal", ".journal")
                self._link(machine, source, "snapshots", ".snapshot")

    def _link(self, machine: str, source: Path, part: str, suffix: str) -> None:
        kept = self._directory / machine / part
        kept.mkdir(parents=True, exist_ok=True)
        known = {path.name for path in kept.iterdir()}
        for path in (source / part).glob(f"*{suffix}"):
            if path.name not in known:
                try:
                    os.link(path, kept / path.name)
                except (FileNotFoundError, FileExistsError):
                    pass  # pruned between the two; or another node's, of the same state

    def records(self, machine: str, findings: Findings) -> Iterator[RawRecord]:
        return read_file_journal(self._directory / machine / "journal", machine, findings)

    def claims(self, machine: str) -> Iterator[HashClaim]:
        for path in sorted((self._directory / machine / "snapshots").glob("*.snapshot")):
            name = _SNAPSHOT_NAME.fullmatch(path.name)
            data = path.read_bytes()
            if name is None or len(data) < _SNAPSHOT.size:
                continue
            hash_bytes, record = _SNAPSHOT.unpack_from(data)[2:4]
            digest = data[_SNAPSHOT.size : _SNAPSHOT.size + hash_bytes].hex()
            yield HashClaim(digest, f"snapshot {path.name} of {machine}", record=record)


class StreamHistory(FileHistory):
    """Copies of the streams of `nats` journals, beside links to the snapshots, which are files there, too."""

    def __init__(
        self, directory: Path, sources: Mapping[str, Sequence[Path]], servers: Sequence[str], prefix: str = "j"
    ) -> None:
        super().__init__(directory, sources)
        self._copier = StreamCopier(servers, {machine: self._copy_of(machine) for machine in sources}, prefix)

    def _copy_of(self, machine: str) -> Path:
        return self._directory / machine / "stream"

    async def run(self) -> None:
        await asyncio.gather(super().run(), self._copier.run())

    async def finish(self) -> None:
        self.take()
        await self._copier.finish()

    def records(self, machine: str, findings: Findings) -> Iterator[RawRecord]:
        return read_stream_journal(self._copy_of(machine), machine, findings)


def kept_history(directory: Path) -> History:
    """Return a history that was gathered before."""
    if any(directory.glob("*/stream")):
        return StreamHistory(directory, {}, [])
    return FileHistory(directory, {})
