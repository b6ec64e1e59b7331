"""Where the director of an experiment sits: on a node that the experiment leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.experiment.model import Experiment
from chaos.run.furnish import TargetUnsuitable


def director_node(nodes: Sequence[str], experiment: Experiment, wanted: str = "") -> str:
    """Return the node for the director: the one that is wanted, else the first that no fault names.

    Raises `TargetUnsuitable` if there is none: a director must not take itself away.
    """
    if wanted and wanted not in nodes:
        raise TargetUnsuitable(f"expected a node of the cluster ({', '.join(nodes)}), was {wanted!r}")
    free = spared(nodes, experiment)
    if wanted and wanted not in free:
        raise TargetUnsuitable(f"expected a node for the director that no fault is done to, was {wanted!r}")
    if not free:
        raise TargetUnsuitable(f"expected a node that no fault is done to, found faults for all: {', '.join(nodes)}")
    return wanted or free[0]


def spared(nodes: Sequence[str], experiment: Experiment) -> list[str]:
    """Return the nodes that no fault names: for all that must outlive the faults."""
    targets = {step.target for phase in experiment.phases for step in phase.faults}
    return [node for node in nodes if node not in targets]
