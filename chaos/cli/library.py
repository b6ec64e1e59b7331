"""`chaos list`, `describe`, `validate` and `schema`: experiments as they are written."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from chaos.experiment import library
from chaos.experiment.library import ExperimentInvalid, Source
from chaos.faults.catalogue import CATALOGUE
from chaos.faults.description import arguments_schema, lines_of_fault
from chaos.faults.injection import FaultType

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_COMMENT = "#"


def list_experiments(
    faults: Annotated[bool, typer.Option("--faults", help="The faults that an experiment can do.")] = False,
    tags: Annotated[bool, typer.Option("--tags", help="The tags, and how many experiments have each.")] = False,
    tag: Annotated[str, typer.Option(help="Only experiments with this tag.")] = "",
    as_json: Json = False,
) -> None:
    """The experiments that are shipped; or the faults, or the tags."""
    if faults:
        show([_fault_row(fault, as_json) for fault in CATALOGUE.values()], as_json)
        return
    sources = [library.read(path) for path in library.shipped().values()]
    if tags:
        counted = Counter(tag for source in sources for tag in source.experiment.tags)
        rows: list[Row] = [{"tag": name, "experiments": count} for name, count in sorted(counted.items())]
    else:
        chosen = [source for source in sources if not tag or tag in source.experiment.tags]
        rows = [_row(source) for source in chosen]
    show(rows, as_json)


Row = dict[str, str | int]


def _row(source: Source) -> Row:
    experiment = source.experiment
    return {
        "name": source.name,
        "title": experiment.title,
        "expect": experiment.expect,
        "seconds": round(experiment.duration_s),
        "tags": " ".join(experiment.tags),
    }


def _fault_row(fault: FaultType, in_full: bool) -> Row:
    row: Row = {
        "fault": fault.name,
        "what it does": fault.description,
        "arguments": " ".join(fault.arguments.__struct_fields__),
        "needs": " ".join(fault.needs),
    }
    return row | {"target": fault.targets, "proof": fault.shows, "taken back": fault.takes_back} if in_full else row


def show(rows: list[Row], as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, value in (rows[0] if rows else {}).items():
        table.add_column(name.upper(), justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console()
    # In a pipe or a file there is no edge to stay within, and what is cut off cannot be read.
    (console if console.is_terminal else Console(width=200)).print(table)


def describe(
    name: Annotated[str, typer.Argument(help="Of an experiment, or its file; or of a fault.")],
    as_json: Json = False,
) -> None:
    """What an experiment rehearses, does and promises; or what a fault does, with its arguments."""
    if name in CATALOGUE:
        fault = CATALOGUE[name]
        if as_json:
            print(json.dumps({**_fault_row(fault, in_full=True), "schema": arguments_schema(fault)}, indent=2))
        else:
            print("\n".join(lines_of_fault(fault)))
        return
    source = library.load(name)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(source.experiment)).decode())
        return
    for line in lines_of(source):
        print(line)


def lines_of(source: Source) -> list[str]:
    """Return an experiment as a person reads it."""
    experiment, environment = source.experiment, source.experiment.environment
    lines = [f"{source.name}: {experiment.title}", f"  {source.path}", ""]
    lines += [f"  {line}" for line in _opening(source.text)]
    if experiment.description:
        lines += [f"  {line}" for line in experiment.description.strip().splitlines()] + [""]
    capacity = f", {environment.capacity_per_s} commands/s each" if environment.capacity_per_s else ""
    standbys = "standbys" if environment.standbys else "no standbys"
    lines += [
        f"  exchange   {environment.nodes} node(s), {environment.shards} shard(s){capacity}, {environment.gateways}"
        f" gateway(s), {standbys}, journal {environment.journal}, {environment.profile}",
        f"  markets    {', '.join(f'{m.symbol} on shard-{m.shard}' for m in environment.markets)}",
    ]
    for population in experiment.load:
        lines.append(
            f"  load       {population.name}: {population.clients} {population.behaviour}, {population.per_s:g}/s"
            f" {population.process}, retry {population.retry}, deadline {population.deadline_ms} ms"
        )
    begin_s = 0.0
    for phase in experiment.phases:
        trigger = "  (trigger)" if phase.is_trigger else ""
        load_to = f" → {_load_text(phase.load_to)}" if phase.load_to is not None else ""
        end_s = begin_s + phase.duration_s
        load = f"load {_load_text(phase.load)}{load_to}"
        lines.append(f"  phase      {begin_s:g}–{end_s:g} s  {phase.name}: {load}{trigger}")
        for step in phase.faults:
            target = f" {step.target}" if step.target else ""
            lasts = f", for {step.for_s:g} s" if step.for_s else ""
            arguments = "".join(f" {name}={value}" for name, value in step.arguments.items())
            lines.append(f"               at {begin_s + step.at_s:g} s  {step.fault}{target}{arguments}{lasts}")
        begin_s = end_s
    promised = msgspec.to_builtins(experiment.service_levels)
    levels = ", ".join(f"{name} {value:g}" for name, value in promised.items() if value is not None)
    lines += [
        f"  holds      {', '.join(experiment.invariants)}",
        f"  promises   {levels}",
        *([f"  sometimes  {', '.join(experiment.sometimes)}"] if experiment.sometimes else []),
        f"  expected   to {experiment.expect}",
        f"  seed       {experiment.seed}",
    ]
    return lines


def _opening(text: str) -> list[str]:
    """Return the comment that a file begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith(_COMMENT):
            break
        lines.append(line.removeprefix(_COMMENT).strip())
    return [*lines, ""] if lines else []


def _load_text(load: float | dict[str, float]) -> str:
    if isinstance(load, dict):
        return ", ".join(f"{name} × {share:g}" for name, share in load.items())
    return f"× {load:g}"


def validate(files: Annotated[list[str], typer.Argument(help="Files, or names of experiments.")]) -> None:
    """Check experiments without running them; ends with 2 if one is invalid."""
    problems: list[str] = []
    for file in files:
        try:
            source = library.load(file)
        except ExperimentInvalid as error:
            problems += error.problems
        else:
            print(f"{source.path}: valid, {source.experiment.duration_s:g} s")
    if problems:
        raise ExperimentInvalid(problems)


def schema() -> None:
    """Print the JSON Schema of experiments."""
    print(schema_text(), end="")


def schema_text() -> str:
    """Return the JSON Schema as docs/experiment.schema.json has it."""
    return json.dumps(library.schema(), indent=2) + "\n"
