"""The catalogue of faults in words: for `chaos describe`, and as the table of docs/faults.md."""

from __future__ import annotations

from typing import Any

import msgspec

from chaos.faults.catalogue import CATALOGUE
from chaos.faults.injection import FaultType

TABLE_BEGIN = "<!-- catalogue: `python -m chaos.faults.description` prints it -->"
TABLE_END = "<!-- end of the catalogue -->"
NOTHING = "–"


def arguments_schema(fault: FaultType) -> dict[str, Any]:
    """Return the JSON Schema of a fault's arguments."""
    schema: dict[str, Any] = msgspec.json.schema(fault.arguments)
    return dict(schema["$defs"][fault.arguments.__name__])


def argument_lines(fault: FaultType) -> list[str]:
    """Return each argument with what it may be, and what it is if nothing is said."""
    schema = arguments_schema(fault)
    required = set(schema.get("required", ()))
    lines = []
    for name, value in schema["properties"].items():
        default = "" if name in required else f" = {value['default']}"
        lines.append(f"{name}{default} ({_allowed(value)})")
    return lines


def _allowed(value: dict[str, Any]) -> str:
    if "enum" in value:
        return " | ".join(map(str, value["enum"]))
    bounds = [
        (f"> {value['exclusiveMinimum']:g}" if "exclusiveMinimum" in value else ""),
        (f">= {value['minimum']:g}" if "minimum" in value else ""),
        (f"<= {value['maximum']:g}" if "maximum" in value else ""),
    ]
    return ", ".join(filter(None, (value.get("type", ""), *bounds)))


def lines_of_fault(fault: FaultType) -> list[str]:
    """Return a fault as a person reads it."""
    lines = [
        f"{fault.name}: {fault.description}",
        "",
        f"  target      {fault.targets}",
        f"  proof       {fault.shows}",
        f"  taken back  {fault.takes_back or 'there is nothing to take back'}",
    ]
    lines += [f"  needs       {', '.join(fault.needs)}"] if fault.needs else []
    lines += [f"  argument    {line}" for line in argument_lines(fault)]
    return [line.replace("`", "") for line in lines]


def table() -> str:
    """Return the catalogue as a table in Markdown."""
    rows: list[tuple[str, ...]] = [("fault", "what it does", "to what", "arguments", "proof", "taken back", "needs")]
    rows.append(("---",) * len(rows[0]))
    for fault in CATALOGUE.values():
        arguments = "<br>".join(f"`{line.partition(' (')[0]}`" for line in argument_lines(fault))
        needs = ", ".join(fault.needs)
        rows.append(
            (
                f"`{fault.name}`",
                fault.description,
                fault.targets,
                arguments or NOTHING,
                fault.shows,
                fault.takes_back or NOTHING,
                needs or NOTHING,
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    print(table())
