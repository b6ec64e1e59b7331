"""The engine as modules, and copies of it with a fault planted, to see that tests would find it.

A copy is made from the sources, so it does not matter whether the installed modules are compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

SOURCES = Path(__file__).resolve().parents[2] / "exchange" / "engine"


class Fault(NamedTuple):
    """A text of a module, and what stands there instead."""

    module: str
    text: str
    instead: str


class Engine:
    """The parts of an engine package that tests of money need."""

    def __init__(self, package: str) -> None:
        def load(module: str) -> Any:
            return import_module(f"{package}.{module}")

        self.channel = load("channel")
        self.commands = load("commands")
        self.words = load("ledger_words")
        self.instrument = load("instrument")
        self.ledger = load("ledger")
        self.shard = load("shard")
        self.state = load("state")

    def copy_of_shard(self, shard: Any) -> Any:
        return self.state.restore(self.state.state_of(shard))

    def copy_of_ledger(self, ledger: Any) -> Any:
        return self.ledger.Ledger.restore(ledger.state())


REAL = Engine("exchange.engine")


@contextmanager
def planted(directory: Path, name: str, faults: list[Fault]) -> Iterator[Engine]:
    """Give a copy of the engine with faults, under a package name of its own."""
    package = directory / name
    package.mkdir()
    for source in SOURCES.glob("*.py"):
        text = source.read_text("utf-8")
        for fault in faults:
            if fault.module == source.stem:
                found = text.count(fault.text)
                assert found == 1, f"{source.name}: expected the text to change once, was {found} times: {fault.text}"
                text = text.replace(fault.text, fault.instead)
        (package / source.name).write_text(text.replace("exchange.engine", name), "utf-8")
    sys.path.insert(0, str(directory))
    try:
        yield Engine(name)
    finally:
        sys.path.remove(str(directory))
        for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            del sys.modules[module]
