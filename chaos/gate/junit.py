"""The outcomes of a suite as JUnit XML, which pipelines read: a test case for each run, with its figures.

A run that is broken is a failure, one that says nothing is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from chaos.gate.outcome import Outcome, Result

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_of(suite: str, outcomes: Sequence[Outcome], begun: datetime | None = None) -> bytes:
    """Return the file."""
    moment = (begun or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(sum(outcome.result is Result.FAILED for outcome in outcomes)),
        "errors": str(sum(outcome.result is Result.ERROR for outcome in outcomes)),
        "time": f"{sum(outcome.duration_s for outcome in outcomes):.3f}",
    }
    root = ET.Element("testsuites", {"name": "chaos", **counts})
    tests = ET.SubElement(root, "testsuite", {"name": _text(suite), **counts, "skipped": "0", "timestamp": moment})
    for outcome in outcomes:
        case = ET.SubElement(
            tests,
            "testcase",
            {
                "classname": f"chaos.{_text(suite)}",
                "name": _text(f"{outcome.experiment} (seed {outcome.seed})"),
                "time": f"{outcome.duration_s:.3f}",
            },
        )
        properties = ET.SubElement(case, "properties")
        known = {"seed": outcome.seed, "exit_code": int(outcome.exit_code), "directory": outcome.directory}
        for name, value in (known | outcome.figures).items():
            ET.SubElement(properties, "property", {"name": _text(name), "value": _text(str(value))})
        if outcome.result is not Result.PASSED:
            kind = "failure" if outcome.result is Result.FAILED else "error"
            told = ET.SubElement(case, kind, {"message": _text(outcome.summary), "type": outcome.exit_code.name})
            told.text = _text("\n".join(outcome.broken) or outcome.summary)
        if outcome.output:
            ET.SubElement(case, "system-out").text = _text(outcome.output)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _text(text: str) -> str:
    """Return text without the characters that XML cannot hold, such as those that colour a terminal."""
    return _NOT_XML.sub("", text)
