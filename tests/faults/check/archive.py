"""Keeps what the exchange lets go of: journal segments behind a snapshot, and the snapshots themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


class Archive:
    """Hard links to every segment and snapshot that there ever was. They cost nothing, and grow with the files."""

    def __init__(self, directory: Path, machines: Mapping[str, tuple[str, Path]]) -> None:
        self.directory = directory
        self._machines = machines

    def take(self) -> None:
        """Link what is new. To be called often enough that nothing comes and goes in between."""
        for name, (_, source) in self._machines.items():
            for part in ("journal", "snapshots"):
                kept = self.directory / name / part
                kept.mkdir(parents=True, exist_ok=True)
                known = {path.name for path in kept.iterdir()}
                for path in (source / part).glob("*"):
                    if path.suffix in (".journal", ".snapshot") and path.name not in known:
                        try:
                            os.link(path, kept / path.name)
                        except FileNotFoundError:
                            pass  # pruned between the two

    def journal(self, machine: str) -> Path:
        return self.directory / machine / "journal"

    def snapshots(self, machine: str) -> Path:
        return self.directory / machine / "snapshots"
