"""When something ends, as a person writes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_DURATION = re.compile(r"([0-9]{1,9})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_expiry(text: str, now: datetime) -> datetime:
    """Return the moment that is meant: an ISO date or time (UTC if it names no zone), or a duration such as 30d.

    Raises:
        typer.BadParameter: it is neither, or is not in the future.
    """
    try:
        moment = _parse(text, now)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"--expires: expected a date such as 2027-01-31 or a duration such as 12h or 30d, was {text!r}"
        ) from None
    if moment <= now:
        raise typer.BadParameter(f"--expires: expected a moment after {now:%Y-%m-%dT%H:%M:%SZ}, was {text!r}")
    return moment


def _parse(text: str, now: datetime) -> datetime:
    duration = _DURATION.fullmatch(text)
    if duration is not None:
        return now + int(duration[1]) * _UNITS[duration[2]]
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
