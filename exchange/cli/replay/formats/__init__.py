"""The formats of recordings: opening a file, telling its format, reading it."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from exchange.cli.replay.formats.bitstamp import read_bitstamp
from exchange.cli.replay.formats.flow import HEADER, read_flow
from exchange.cli.replay.formats.lobster import COLUMNS, read_lobster
from exchange.cli.replay.recording import Recording, RecordingInvalid

FORMATS: dict[str, Callable[[str, Iterable[str]], Recording]] = {
    "flow": read_flow,
    "bitstamp": read_bitstamp,
    "lobster": read_lobster,
}


def read(path: Path, format_name: str = "") -> Recording:
    """Read a recording, compressed as its name says (.gz, .xz); the format is told from its first line if not named.

    Raises:
        RecordingInvalid: the file cannot be read, its format is not known, or a line is not of its format.
    """
    try:
        if not format_name:
            with _open(path) as file:
                format_name = guess(path.name, file.readline(1_000))
        parse = FORMATS.get(format_name)
        if parse is None:
            raise RecordingInvalid(
                str(path),
                1,
                f"expected a recording of format {', '.join(FORMATS)}, was {format_name or 'none of them'}",
            )
        with _open(path) as file:
            return parse(str(path), file)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordingInvalid(str(path), 0, f"expected a file that can be read: {reason}") from error


def guess(name: str, first_line: str) -> str:
    """Return the format that the first line of a file, or else its name, looks like; "" if it looks like none."""
    line = first_line.strip()
    if line == HEADER:
        return "flow"
    if "{" in line and line[:1].isdigit():
        return "bitstamp"
    cells = line.split(",")
    if len(cells) >= COLUMNS and cells[1] in tuple("1234567"):
        return "lobster"
    return "lobster" if "_message_" in name and line else ""


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="ascii", errors="replace")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="ascii", errors="replace")
    return path.open(encoding="ascii", errors="replace")
