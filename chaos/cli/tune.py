"""`chaos tune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chaos.experiment import library
from chaos.tune.evaluation import Evaluator, LocalEvaluator
from chaos.tune.proposal import as_markdown, as_toml, verdict_of
from chaos.tune.space import DEFAULT_NAMES, parameters_of
from chaos.tune.study import Plan
from chaos.tune.study import tune as search
from exchange.ray_settings import CLUSTER_RAY_ENVIRONMENT

STORMS = ("cold-storm",)
HELD_OUT = ("surge", "cold-storm")
HELD_OUT_SEED = 1_000
"""Far from those that are searched on."""


def tune(
    storms: Annotated[list[str] | None, typer.Argument(help=f"Experiments to search on; {', '.join(STORMS)}.")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help=f"An experiment that decides; once for each. {', '.join(HELD_OUT)}.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Of each storm: a configuration is worth the worst of them.", min=1)] = 2,
    budget_min: Annotated[float, typer.Option(help="Minutes, a third of them for what decides.", min=1.0)] = 20.0,
    parameter: Annotated[
        list[str] | None, typer.Option(help="A value of the settings to search; once for each. Those of overload.")
    ] = None,
    storage: Annotated[Path, typer.Option(help="File of the search: one that is there goes on.")] = Path(
        "tune.journal"
    ),
    out: Annotated[Path, typer.Option(help="Directory for settings.toml and proposal.md.")] = Path("chaos-tune"),
    ray: Annotated[str, typer.Option(help="HOST:PORT of a Ray cluster: trials run on its nodes at once.")] = "",
    seed: Annotated[int, typer.Option(help="Of the search itself.")] = 1,
) -> int:
    """Search the settings for those that bear storms best, and propose a change with its evidence.

    A configuration that breaks a rule of safety is refused. Storms and seeds that the search has not seen decide.
    """
    console = Console()
    names, deciding = tuple(storms or STORMS), tuple(held_out or HELD_OUT)
    for name in (*names, *deciding):
        library.load(name)
    plan = Plan(
        parameters=parameters_of(parameter or DEFAULT_NAMES),
        storms=names,
        seeds=range(1, seeds + 1),
        held_out=deciding,
        held_out_seeds=range(HELD_OUT_SEED, HELD_OUT_SEED + seeds),
        budget_s=budget_min * 60.0,
        seed=seed,
    )
    storage.parent.mkdir(parents=True, exist_ok=True)
    result = search(plan, _evaluator(ray), storage, console.print)
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.toml").write_text(as_toml(result), encoding="utf-8")
    (out / "proposal.md").write_text(as_markdown(result), encoding="utf-8")
    console.print(verdict_of(result))
    console.print(f"{out}/proposal.md, {out}/settings.toml")
    return 0


def _evaluator(ray: str) -> Evaluator:
    if not ray:
        return LocalEvaluator()
    # Ray reads it when it is imported; what is set already holds.
    os.environ.update({name: value for name, value in CLUSTER_RAY_ENVIRONMENT.items() if name not in os.environ})
    from chaos.actors import RayEvaluator

    return RayEvaluator(ray)
