"""What the public was told in a run: what changed on the status page, and what was announced, by time."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.report.reading import Run
from chaos.run.public import ANNOUNCEMENTS_FILE, BOARD_FILE, PUBLIC, Announced, Published
from chaos.run.record import read_lines


@dataclass(frozen=True, slots=True)
class ToldRow:
    at_s: float
    where: str
    """The page, or an announcement."""
    text: str


def told_rows(run: Run) -> list[ToldRow]:
    """Return it by time; nothing if no status service ran beside it."""
    directory = run.directory / PUBLIC
    if run.manifest is None or not (directory / BOARD_FILE).is_file():
        return []
    begun_ns = run.manifest.begun_monotonic_ns
    rows: list[ToldRow] = []
    known: dict[str, tuple[str, str, str]] = {}
    for board in read_lines(directory / BOARD_FILE, Published):
        changed = {name: now for name, now in board.components.items() if known.get(name) != now}
        if known and changed:
            text = "; ".join(f"{name}: {_words(status, mode)}" for name, (status, mode, _) in changed.items())
            rows.append(ToldRow((board.monotonic_ns - begun_ns) / 1e9, "page", text))
        known = board.components
    if (directory / ANNOUNCEMENTS_FILE).is_file():
        for announced in read_lines(directory / ANNOUNCEMENTS_FILE, Announced):
            at_s = (announced.monotonic_ns - begun_ns) / 1e9
            rows.append(ToldRow(at_s, "announcement", f"{announced.title}. {announced.latest}"))
    return sorted(rows, key=lambda row: row.at_s)


def _words(status: str, mode: str) -> str:
    status = status.replace("_", " ")
    return f"{status} ({mode.replace('_', ' ')})" if mode else status
