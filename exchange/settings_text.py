"""Settings as an operator writes them: TOML. What is not named keeps its default; what is wrong is refused by name."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from exchange.settings import Settings, SettingsInvalid

_DECLARED = inspect.type_info(Settings)


class Change(NamedTuple):
    """One value that differs between two settings."""

    name: str
    before: str
    after: str


def parse_settings(toml: str) -> Settings:
    """Read settings. Raises `SettingsInvalid`, which names all that is wrong, rather than the first of it."""
    document = _read(toml)
    wrong = list(_check("", _DECLARED, document))
    if wrong:
        raise SettingsInvalid("; ".join(text for _, text in wrong), tuple(name for name, _ in wrong))
    try:
        return msgspec.convert(_overlaid(msgspec.to_builtins(Settings()), document), Settings)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, SettingsInvalid):
            raise error.__cause__ from error
        raise


def recover_settings(toml: str) -> tuple[Settings, str]:
    """Read settings that another version has taken: what is wrong by now has its default. Returns also what it was."""
    document = _read(toml)
    dropped: list[str] = []
    while True:
        try:
            return parse_settings(msgspec.toml.encode(document).decode()), "; ".join(dropped)
        except SettingsInvalid as error:
            dropped.append(str(error))
            for name in error.names:
                _drop(document, name.split("."))


def format_settings(settings: Settings) -> str:
    """Return settings as TOML, every value of them."""
    return msgspec.toml.encode(settings).decode()


def changes_between(before: Settings, after: Settings) -> list[Change]:
    """Return the values that differ, in the order of their declaration."""
    old, new = dict(_values("", before)), dict(_values("", after))
    return [Change(name, _shown(old[name]), _shown(new[name])) for name in old if old[name] != new[name]]


def _read(toml: str) -> dict[str, Any]:
    try:
        return tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"expected TOML, found what is none: {error}") from error


def _overlaid(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with the values of another one over its own."""
    values = {k: _overlaid(below[k], v) if isinstance(v, Mapping) else v for k, v in above.items()}
    return {**below, **values}


def _check(name: str, kind: Any, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the fault of each value that is not as declared."""
    if isinstance(kind, inspect.StructType):
        if not isinstance(value, Mapping):
            yield name, f"{name}: expected a table [{name}], was {_shown(value)}"
            return
        yield from _check_table(name, kind, value)
        return
    why = ""
    if isinstance(kind, inspect.Metadata):
        why = f" ({kind.extra_json_schema['description']})" if kind.extra_json_schema else ""
        kind = kind.type
    if not _is_within(kind, value):
        yield name, f"{name}: expected {_range_of(kind)}, was {_shown(value)}{why}"


def _check_table(name: str, kind: inspect.StructType, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    fields = {field.name: field for field in kind.fields}
    for key, value in table.items():
        path = f"{name}.{key}" if name else key
        if key in fields:
            yield from _check(path, fields[key].type, value)
        else:
            yield path, f"{path}: no such setting{_nearest(path)}"


def _nearest(path: str) -> str:
    """Return what may have been meant: of the section that a setting stands in, if there is such a one."""
    known = [name for name, _ in _values("", Settings())]
    sections = sorted({name.rpartition(".")[0] for name in known} - {""})
    section = path.rpartition(".")[0]
    own = [name for name in known if section and name.rpartition(".")[0] == section]
    near = get_close_matches(path, own or [*known, *sections], 1)
    if near:
        return f", the nearest is {near[0]}"
    return f", expected one of {', '.join(own or sections)}{'' if own else ' or a value in them'}"


def _is_within(kind: Any, value: Any) -> bool:
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values
    if isinstance(kind, inspect.IntType):
        is_number = isinstance(value, int)
    elif isinstance(kind, inspect.FloatType):
        is_number = isinstance(value, int | float)
    else:
        raise TypeError(f"expected settings of numbers and choices, found one of {kind}")
    is_number = is_number and not isinstance(value, bool)
    return is_number and (kind.ge is None or value >= kind.ge) and (kind.le is None or value <= kind.le)


def _range_of(kind: Any) -> str:
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(map(_shown, kind.values))
    what = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    return f"{what} from {_shown(kind.ge)} to {_shown(kind.le)}"


def _values(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _values(f"{name}.{field}" if name else field, getattr(value, field))
    else:
        yield name, value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:,}"
    return repr(value).replace("'", '"') if isinstance(value, str) else repr(value)


def _drop(document: dict[str, Any], path: list[str]) -> None:
    *above, last = path
    for key in above:
        document = document.get(key, {})
    document.pop(last, None)
