"""What is searched: values of the settings, each within a part of its declared range around its default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

from exchange.settings import Settings
from exchange.settings_text import parse_settings

AROUND = 4.0
"""A value is searched from a fourth to four times its default: beyond, a few dozen trials find nothing."""
DEFAULT_NAMES = (
    "queues.orders_wait_ms",
    "queues.passive_wait_ms",
    "codel.target_ms",
    "credits.target_ms",
    "deadlines.margin_ms",
    "breaker.accepts_factor",
    "stages.delay_target_ms",
    "stages.cold.cancel_only_ms",
    "stages.cold.post_only_ms",
    "stages.cold.ramp_ms",
    "stages.cold.healthy_ms",
)
"""Those that say how a storm is met and how a shard comes back from one."""
Value = int | float
Values = Mapping[str, Value]


class ParameterUnknown(LookupError):
    """No such value can be tuned."""

    code = "PARAMETER_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value of the settings by its name, `queues.orders_wait_ms`; searched from `low` to `high`, by ratios."""

    name: str
    default: Value
    low: Value
    high: Value

    @property
    def is_whole(self) -> bool:
        return isinstance(self.default, int)


def declared() -> dict[str, Parameter]:
    """Return every value that can be tuned: numbers with a declared range and a default above 0."""
    defaults = msgspec.to_builtins(Settings())
    return {parameter.name: parameter for parameter in _declared("", inspect.type_info(Settings), defaults)}


def parameters_of(names: Sequence[str]) -> list[Parameter]:
    """Return the parameters of these names. Raises `ParameterUnknown`."""
    known = declared()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise ParameterUnknown(f"expected a number of the settings with a range, was {name!r}{hint}")
    return [known[name] for name in names]


def nested(values: Values) -> dict[str, Any]:
    """Return values by name as the settings have them: section by section."""
    document: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        at = document
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = value
    return document


def settings_of(values: Values) -> Settings:
    """Return whole settings with these values. Raises `SettingsInvalid`."""
    return parse_settings(msgspec.toml.encode(nested(values)).decode())


def _declared(prefix: str, described: inspect.Type, defaults: Any) -> Iterator[Parameter]:
    if isinstance(described, inspect.Metadata):
        described = described.type
    if isinstance(described, inspect.StructType):
        for field in described.fields:
            name = f"{prefix}.{field.name}" if prefix else field.name
            yield from _declared(name, field.type, defaults[field.name])
        return
    if not isinstance(described, inspect.IntType | inspect.FloatType) or not defaults:
        return
    if described.ge is None or described.le is None:
        return
    low, high = max(described.ge, defaults / AROUND), min(described.le, defaults * AROUND)
    if isinstance(described, inspect.IntType):
        yield Parameter(prefix, int(defaults), max(round(low), 1), round(high))
    elif low > 0:
        yield Parameter(prefix, float(defaults), float(low), float(high))
