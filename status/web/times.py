"""Times as they are written: ISO 8601 for programs, words for people. All UTC."""

from __future__ import annotations

from datetime import UTC, datetime

MS = 1_000_000
SECOND = 1_000_000_000


def moment(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns // SECOND, UTC).replace(microsecond=at_ns % SECOND // 1000)


def iso(at_ns: int) -> str:
    """`2026-07-05T10:20:30.123Z`; the empty string for 0."""
    return moment(at_ns).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ns // MS % 1000:03d}Z" if at_ns else ""


def iso_or_none(at_ns: int) -> str | None:
    return iso(at_ns) or None


def ms(at_ns: int) -> str:
    """Milliseconds as OKX writes them: a string, empty for 0."""
    return str(at_ns // MS) if at_ns else ""


def date(at_ns: int) -> str:
    return moment(at_ns).strftime("%Y-%m-%d")


def words(at_ns: int) -> str:
    """`5 Jul 2026, 10:20:30 UTC`."""
    when = moment(at_ns)
    return f"{when.day} {when:%b %Y, %H:%M:%S} UTC"


def day_words(day: str) -> str:
    """`5 Jul 2026` of `2026-07-05`."""
    when = datetime.fromisoformat(day)
    return f"{when.day} {when:%b %Y}"


def month_words(month: str) -> str:
    """`July 2026` of `2026-07`."""
    return datetime.fromisoformat(f"{month}-01").strftime("%B %Y")


def duration(seconds: float) -> str:
    """`12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`: two units at most."""
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if parts or count:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part) or "0 s"
