"""`chaos incident`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chaos.incident import PROFILES, SCENARIOS, figure_of, run


def incident(
    scenarios: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(SCENARIOS)}; all without.")] = None,
    profile: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PROFILES)}; all without.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests at the same times.")] = 1,
    figures: Annotated[Path | None, typer.Option(help="Directory for a figure of each scenario, as SVG.")] = None,
) -> None:
    """The incident of 2023-07-05 in small, without the policies and with them: a line of JSON for each run."""
    for chosen, known in ((scenarios, SCENARIOS), (profile, PROFILES)):
        for name in chosen or ():
            if name not in known:
                raise typer.BadParameter(f"expected one of {', '.join(known)}, was {name!r}")
    for scenario in SCENARIOS.values():
        if scenarios and scenario.name not in scenarios:
            continue
        outcomes = [run(scenario, one, seed) for one in PROFILES.values() if not profile or one.name in profile]
        for outcome in outcomes:
            Console().print_json(json.dumps(outcome.figures()), indent=None)
        if figures is not None:
            (figures / f"{scenario.name}.svg").write_text(figure_of(outcomes))
