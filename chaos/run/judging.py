"""Checks the whole of a run, once it is over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chaos.experiment.model import Experiment
from chaos.run.parts import Judgement
from chaos.run.record import Event, Sample


class WholeRun:
    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    async def judge(self, directory: Path, samples: Sequence[Sample], events: Sequence[Event]) -> Judgement:
        return Judgement()
