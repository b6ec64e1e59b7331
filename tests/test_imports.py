"""Imports run one way. The table `RULES` says which; to change the layers, change the table.

The source is parsed, not imported, so an import inside a function, under `TYPE_CHECKING` or by
`importlib.import_module("…")` counts as well.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIRST_PARTY = frozenset({"exchange", "chaos", "status"})

# In `Rule.third_party`: any package outside the project, except those that a rule has to name.
ANY = "*"
ONLY_BY_NAME = frozenset({"ray"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What one layer may import besides itself, the standard library and the bare `exchange`."""

    project: tuple[str, ...]
    third_party: tuple[str, ...]
    why: str


# One row per layer, lowest first. A layer is the package or module of that name and all in it.
RULES = {
    "exchange": Rule(
        project=(),
        third_party=(),
        why="every import of a part runs `exchange/__init__.py`, so that imports nothing",
    ),
    "exchange.compiled": Rule(
        project=(),
        third_party=(),
        why="it runs before anything that may be compiled: standard library only",
    ),
    "exchange.forks": Rule(
        project=(),
        third_party=(),
        why="it runs before gRPC is imported: standard library only",
    ),
    "exchange.engine": Rule(
        project=("exchange.compiled",),
        third_party=(),
        why="the machines are pure and run under virtual time: standard library only",
    ),
    "exchange.runtime.journal.nats_settings": Rule(
        project=(),
        third_party=(),
        why="values alone, which are a part of the configuration",
    ),
    "exchange.settings": Rule(
        project=(),
        third_party=("msgspec",),
        why="values alone, which every layer but the engine and the client reads",
    ),
    "exchange.settings_text": Rule(
        project=("exchange.settings",),
        third_party=("msgspec",),
        why="how settings are written, for those who take them from a person",
    ),
    "exchange.overload": Rule(
        project=("exchange.settings",),
        third_party=(),
        why="pure decisions, tested under virtual time: standard library only",
    ),
    "exchange.config": Rule(
        project=("exchange.runtime.journal.nats_settings", "exchange.settings"),
        third_party=(),
        why="every layer but the engine and the client reads it: nothing but values",
    ),
    "exchange.v1": Rule(
        project=(),
        third_party=("google", "grpc"),
        why="generated from the protos",
    ),
    "exchange.runtime": Rule(
        project=(
            "exchange.engine",
            "exchange.v1",
            "exchange.config",
            "exchange.settings",
            "exchange.overload",
            "exchange.runtime.journal.nats_settings",
        ),
        third_party=(ANY,),
        why="a host runs without Ray, and does not know who serves or places it",
    ),
    "exchange.gateway": Rule(
        project=(
            "exchange.runtime",
            "exchange.overload",
            "exchange.engine",
            "exchange.v1",
            "exchange.config",
            "exchange.settings",
        ),
        third_party=(ANY,),
        why="trading goes on without the supervisor; actor calls are passed in",
    ),
    "exchange.supervisor": Rule(
        project=(
            "exchange.runtime",
            "exchange.overload",
            "exchange.engine",
            "exchange.v1",
            "exchange.config",
            "exchange.settings",
            "exchange.settings_text",
        ),
        third_party=(ANY,),
        why="its decisions are tested without Ray or gateways; actor calls are passed in",
    ),
    "exchange.ray_settings": Rule(
        project=(),
        third_party=(),
        why="values alone",
    ),
    "exchange.processes": Rule(
        project=(),
        third_party=(),
        why="reads /proc: standard library only",
    ),
    "exchange.keeper": Rule(
        project=("exchange.processes",),
        third_party=(),
        why="one runs for each Ray node, so it is small: standard library only",
    ),
    "exchange.netns": Rule(
        project=(),
        third_party=(),
        why="networks are made by the command line of the system: standard library only",
    ),
    "exchange.nodes": Rule(
        project=("exchange.netns", "exchange.processes", "exchange.ray_settings"),
        third_party=(),
        why="Ray is run by its command line, so that whoever breaks nodes needs none of it",
    ),
    "exchange.node_reviver": Rule(
        project=("exchange.nodes",),
        third_party=("structlog",),
        why="knows nodes and nothing of what runs on them",
    ),
    "exchange.ray_calls": Rule(
        project=("exchange.runtime", "exchange.engine"),
        third_party=(ANY, "ray"),
        why="how the parts call each other over Ray; what they do with it is theirs",
    ),
    "exchange.actors": Rule(
        project=(
            "exchange.ray_calls",
            "exchange.gateway",
            "exchange.supervisor",
            "exchange.runtime",
            "exchange.engine",
            "exchange.v1",
            "exchange.config",
            "exchange.settings",
        ),
        third_party=(ANY, "ray"),
        why="the Ray shells around the layers below",
    ),
    "exchange.launcher": Rule(
        project=(
            "exchange.actors",
            "exchange.ray_calls",
            "exchange.ray_settings",
            "exchange.supervisor",
            "exchange.config",
            "exchange.settings",
        ),
        third_party=(ANY, "ray"),
        why="starts the actors and finds them, and asks them nothing but whether they are there",
    ),
    "exchange.supervisor_actor": Rule(
        project=(
            "exchange.actors",
            "exchange.launcher",
            "exchange.ray_calls",
            "exchange.gateway",
            "exchange.supervisor",
            "exchange.runtime",
            "exchange.engine",
            "exchange.config",
            "exchange.settings",
            "exchange.settings_text",
        ),
        third_party=(ANY, "ray"),
        why="the Ray shell around the supervisor, which starts all others",
    ),
    "exchange.cluster": Rule(
        project=(
            "exchange.supervisor_actor",
            "exchange.actors",
            "exchange.ray_calls",
            "exchange.netns",
            "exchange.nodes",
            "exchange.ray_settings",
            "exchange.gateway",
            "exchange.supervisor",
            "exchange.runtime",
            "exchange.engine",
            "exchange.v1",
            "exchange.config",
            "exchange.settings",
        ),
        third_party=(ANY, "ray"),
        why="starts, finds and stops the actors",
    ),
    "exchange.client": Rule(
        project=("exchange.v1",),
        third_party=("google", "grpc", "grpc_status"),
        why="the SDK is what `pip install evenkeel` brings, without an extra",
    ),
    "chaos.load": Rule(
        project=("exchange.client", "exchange.v1"),
        third_party=(ANY,),
        why="it loads anything that speaks the protocol",
    ),
    "chaos.invariants": Rule(
        project=("chaos.load", "exchange.client", "exchange.v1", "exchange.engine", "exchange.runtime"),
        third_party=(ANY,),
        why="it reads journals and logs by code of its own; the machines are there to be replayed and compared",
    ),
    "chaos": Rule(
        project=(
            "chaos.load",
            "chaos.invariants",
            "exchange.client",
            "exchange.v1",
            "exchange.cluster",
            "exchange.nodes",
            "exchange.node_reviver",
            "exchange.netns",
            "exchange.processes",
            "exchange.ray_settings",
            "exchange.runtime",
            "exchange.config",
            "exchange.settings",
            "exchange.settings_text",
        ),
        third_party=(ANY,),
        why="it starts exchanges, breaks them, and sees them as everybody does: protocol, processes, journals",
    ),
    "chaos.actors": Rule(
        project=("chaos", "chaos.load", "exchange.ray_settings"),
        third_party=(ANY, "ray"),
        why="the Ray shells around the parts of an experiment",
    ),
    "chaos.cli": Rule(
        project=(
            "chaos",
            "chaos.actors",
            "chaos.load",
            "exchange.client",
            "exchange.cluster",
            "exchange.ray_settings",
            "exchange.forks",
        ),
        third_party=(ANY,),
        why="the commands; on a cluster they start the actors",
    ),
    "status": Rule(
        project=("exchange.client", "exchange.v1"),
        third_party=(ANY,),
        why="it stays up when the exchange is down, and sees of it what a client does",
    ),
    "exchange.cli": Rule(
        project=(
            "exchange.client",
            "exchange.cluster",
            "exchange.ray_settings",
            "exchange.runtime.journal.nats_settings",
            "exchange.runtime",  # replay and benchmarks work on local files and in one process
            "exchange.engine",
            "exchange.v1",
            "exchange.config",
            "exchange.settings",
            "exchange.settings_text",
            "exchange.compiled",
            "exchange.forks",
        ),
        third_party=(ANY,),
        why="acts through the client and the cluster; only local tools go deeper",
    ),
}


def layer_of(module: str) -> str | None:
    """The row of `RULES` for a module (or for a name in one): the longest that it lies in.

    `exchange` itself covers no other module, so that a new package in it needs a row of its own.
    """
    parts = module.split(".")
    for length in range(len(parts), 1 if parts[0] == "exchange" else 0, -1):
        layer = ".".join(parts[:length])
        if layer in RULES:
            return layer
    return module if module in RULES else None


@dataclass(frozen=True, slots=True)
class Import:
    name: str  # absolute; of `from a import b` it is `a.b`, whether b is a module or not
    line: int


def imports_in(tree: ast.Module, package: str) -> Iterator[Import]:
    """Every import in the source of a module; its relative imports start from `package`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, node.lineno)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")
                start = above[: len(above) - level + 1] if level else []
                for alias in names:
                    parts = [*start, *([module] if module else []), alias.name]
                    yield Import(".".join(parts), node.lineno)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(name, node.lineno)


def is_allowed(importer: str, imported: str) -> bool:
    rule = RULES[importer]
    top = imported.partition(".")[0]
    if top in FIRST_PARTY:
        # A name of `exchange` that is no layer is an attribute such as `__version__`.
        layer = layer_of(imported) or top
        return layer in (importer, "exchange", *rule.project)
    if top in sys.stdlib_module_names or top in rule.third_party:
        return True
    return ANY in rule.third_party and top not in ONLY_BY_NAME


def violations_in(source: str, module: str, file: str, *, is_package: bool = False) -> list[str]:
    """What the source of `module` imports against the rules, a line of text each."""
    layer = layer_of(module)
    if layer is None:
        return [f"{file}:1: no rule for {module}: add a row to RULES in tests/test_imports.py"]
    rule = RULES[layer]
    allowed = ", ".join(("the standard library", *rule.project, *rule.third_party))
    package = module if is_package else module.rpartition(".")[0]
    return [
        f"{file}:{found.line}: imports {found.name}, expected {layer} to import only itself, {allowed} ({rule.why})"
        for found in imports_in(ast.parse(source, file), package)
        if not is_allowed(layer, found.name)
    ]


def violations_under(root: Path) -> list[str]:
    """`violations_in` of every module of the packages under `root`."""
    found: list[str] = []
    for path in sorted(path for package in FIRST_PARTY for path in root.glob(f"{package}/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        file = path.relative_to(root).as_posix()
        found += violations_in(path.read_text("utf-8"), module, file, is_package=is_package)
    return found


def test_every_module_imports_only_what_its_layer_may() -> None:
    violations = violations_under(ROOT)
    assert not violations, "\n" + "\n".join(violations)


def test_the_rules_have_no_cycle_and_name_only_layers_that_exist() -> None:
    graph = {layer: rule.project for layer, rule in RULES.items()}
    graphlib.TopologicalSorter(graph).prepare()
    assert {name for names in graph.values() for name in names} <= RULES.keys()


def test_nothing_may_import_the_command_line() -> None:
    assert [layer for layer, rule in RULES.items() if "exchange.cli" in rule.project] == []


def test_only_the_shells_around_the_parts_may_import_ray() -> None:
    importers = {layer for layer in RULES if is_allowed(layer, "ray")}
    shells = ("actors", "cluster", "launcher", "ray_calls", "supervisor_actor")
    assert importers == {"chaos.actors", *(f"exchange.{shell}" for shell in shells)}


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("exchange.engine.book", "import msgpack", "msgpack"),
        ("exchange.engine.book", "import exchange.runtime.host", "exchange.runtime.host"),
        ("exchange.engine.book", "from exchange import config", "exchange.config"),
        ("exchange.engine.book", "from .. import runtime", "exchange.runtime"),
        ("exchange.engine.book", "from ..runtime import host", "exchange.runtime.host"),
        ("exchange.engine.book", "def f():\n    import ray", "ray"),
        (
            "exchange.engine.book",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import grpc",
            "grpc",
        ),
        ("exchange.engine.book", "import importlib\nimportlib.import_module('ray')", "ray"),
        ("exchange.engine.book", "__import__('ray')", "ray"),
        ("exchange.config", "import structlog", "structlog"),
        ("exchange.config", "from exchange.runtime import host", "exchange.runtime.host"),
        ("exchange.runtime.host", "import ray", "ray"),
        ("exchange.runtime.host", "from ray.util import state", "ray.util.state"),
        ("exchange.runtime.host", "from exchange.gateway import auth", "exchange.gateway.auth"),
        ("exchange.gateway.links", "import exchange.supervisor", "exchange.supervisor"),
        ("exchange.gateway.links", "from exchange import actors", "exchange.actors"),
        ("exchange.supervisor.rollout", "from exchange import gateway", "exchange.gateway"),
        ("exchange.supervisor.rollout", "import exchange.cluster", "exchange.cluster"),
        ("exchange.client.session", "import structlog", "structlog"),
        ("exchange.client.session", "from exchange.config import X", "exchange.config.X"),
        ("exchange.cluster", "from exchange.cli import main", "exchange.cli.main"),
        ("exchange.cli.up", "import ray", "ray"),
        ("exchange.runtime.host", "import chaos.load", "chaos.load"),
        ("exchange", "import exchange.engine", "exchange.engine"),
    ],
)
def test_a_forbidden_import_is_found_where_it_stands(module: str, source: str, imported: str) -> None:
    (violation,) = violations_in(source, module, "planted.py")
    line = source.count("\n") + 1
    assert violation.startswith(f"planted.py:{line}: imports {imported}, expected ")
    layer = layer_of(module)
    assert layer is not None
    assert RULES[layer].why in violation


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exchange.engine.book", "import heapq\nfrom exchange.engine.orders import Order"),
        ("exchange.engine.book", "from . import orders\nfrom .orders import Order"),
        ("exchange.gateway.trading", "import grpc\nfrom exchange.v1 import trading_pb2"),
        ("exchange.runtime.journal.nats", "import nats\nfrom exchange import config"),
        ("exchange.actors", "import ray\nfrom exchange.gateway import trading"),
        ("exchange.client.session", "import grpc.aio\nfrom grpc_status import rpc_status"),
        ("exchange.client.session", "from exchange import __version__"),
        ("exchange.cli.replay", "import typer\nfrom exchange.engine import shard"),
    ],
)
def test_an_import_that_the_rules_name_is_accepted(module: str, source: str) -> None:
    assert violations_in(source, module, "planted.py") == []


def test_relative_imports_of_a_package_start_from_the_package_itself() -> None:
    source = "from . import orders"
    assert violations_in(source, "exchange.engine", "planted.py", is_package=True) == []


def test_a_module_without_a_rule_is_a_violation() -> None:
    (violation,) = violations_in("", "exchange.new.part", "planted.py")
    assert "no rule for exchange.new.part" in violation


def test_a_bad_file_in_a_tree_is_found_by_path_and_line(tmp_path: Path) -> None:
    bad = tmp_path / "exchange" / "engine" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("import json\n\nimport ray\n", encoding="utf-8")
    (violation,) = violations_under(tmp_path)
    assert violation.startswith("exchange/engine/bad.py:3: imports ray, ")
    assert violations_under(tmp_path / "empty") == []
