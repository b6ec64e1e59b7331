"""The search: Optuna proposes values, storms say what they are worth, held-out storms decide.

Storage is a file, so that a search that was ended goes on where it was. Trials see the same storms with the same seeds
(common random numbers); a configuration is worth the worst of its runs; one that breaks a rule of safety is worth
nothing. What is proposed in the end is not the best trial, which was lucky too, but the middle of the best tenth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, pstdev

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from chaos.tune.evaluation import Evaluator, Job
from chaos.tune.score import FAILED, Gain, Score, worst
from chaos.tune.space import Parameter, Value, settings_of
from exchange.settings import SettingsInvalid

BEST_SHARE = 0.1
BEST_MIN = 3
STARTUP_TRIALS = 5
HELD_OUT_SHARE = 0.3
"""Of the budget, for what decides."""
NOISE_RUNS = 2
"""Of the defaults, on the same storm with the same seed: how much comes by chance."""
TRIALS_FOR_SENSITIVITY = 8
_REFUSED = "refused"
"""How many rules of safety a trial broke: it is allowed with none (Optuna)."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """`storms` and `seeds` are searched on; `held_out` and `held_out_seeds` are seen only in the end."""

    parameters: Sequence[Parameter]
    storms: Sequence[str]
    seeds: Sequence[int]
    held_out: Sequence[str]
    held_out_seeds: Sequence[int]
    budget_s: float
    seed: int = 1

    def jobs(self, values: dict[str, Value]) -> list[Job]:
        return [Job(experiment=storm, seed=seed, values=dict(values)) for storm in self.storms for seed in self.seeds]

    def held_out_jobs(self, values: dict[str, Value]) -> list[Job]:
        return [
            Job(experiment=storm, seed=seed, values=dict(values))
            for storm in self.held_out
            for seed in self.held_out_seeds
        ]


@dataclass(frozen=True, slots=True)
class Result:
    values: dict[str, Value]
    """Proposed; those that are not the default."""
    trials: int
    refused: int
    """Trials that broke a rule of safety, or said nothing."""
    default_score: float
    best_score: float
    gain: Gain | None
    """On what was held out; None: there was nothing to decide on."""
    sensitivity: dict[str, float]
    """Of each parameter: its part in what made trials good or bad; empty with too few trials."""

    @property
    def is_accepted(self) -> bool:
        return self.gain is not None and self.gain.is_beyond_noise


def tune(
    plan: Plan, evaluator: Evaluator, storage: Path, say: Say, clock: Callable[[], float] = time.monotonic
) -> Result:
    """Search for as long as the budget lasts, then decide."""
    search_until_s = clock() + plan.budget_s * (1.0 - HELD_OUT_SHARE)
    study = open_study(plan, storage)
    defaults = {parameter.name: parameter.default for parameter in plan.parameters}
    if not study.trials:
        study.enqueue_trial(dict(defaults))
    took_s = 0.0
    while clock() + took_s <= search_until_s or not _complete(study):
        began_s = clock()
        trial = study.ask()
        values = suggest(trial, plan.parameters)
        score = _evaluate(plan, values, evaluator)
        trial.set_constraint(_REFUSED, len(score.broken) + bool(score.failed))
        study.tell(trial, score.value)
        took_s = clock() - began_s
        verdict = f"{score.value:.3f}" if score.is_allowed else f"refused: {', '.join(score.broken) or score.failed}"
        say(f"trial {trial.number}: {verdict} ({took_s:.0f} s)")
    return decide(plan, study, evaluator, say)


def open_study(plan: Plan, storage: Path) -> optuna.Study:
    """Open the search that is stored there, or begin it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=plan.seed, n_startup_trials=STARTUP_TRIALS, multivariate=True)
    return optuna.create_study(
        study_name=" ".join(plan.storms),
        storage=JournalStorage(JournalFileBackend(str(storage))),
        sampler=sampler,
        direction="minimize",
        load_if_exists=True,
    )


def suggest(trial: Trial, parameters: Sequence[Parameter]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for parameter in parameters:
        if parameter.is_whole:
            values[parameter.name] = trial.suggest_int(
                parameter.name, int(parameter.low), int(parameter.high), log=True
            )
        else:
            values[parameter.name] = trial.suggest_float(parameter.name, parameter.low, parameter.high, log=True)
    return values


def _evaluate(plan: Plan, values: dict[str, Value], evaluator: Evaluator) -> Score:
    try:
        settings_of(values)
    except SettingsInvalid as error:
        return Score(0.0, failed=str(error))
    return worst(evaluator.run(plan.jobs(values)))


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def allowed_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that broke nothing, best first."""
    allowed = [trial for trial in _complete(study) if trial.constraints.get(_REFUSED) == 0.0]
    return sorted(allowed, key=lambda trial: trial.value if trial.value is not None else float("inf"))


def middle_of_best(trials: Sequence[FrozenTrial], parameters: Sequence[Parameter]) -> dict[str, Value]:
    """Return the middle of the best tenth of trials, value by value; what is its default is left out."""
    best = trials[: max(round(len(trials) * BEST_SHARE), BEST_MIN)]
    values: dict[str, Value] = {}
    for parameter in parameters:
        middle = median(trial.params[parameter.name] for trial in best)
        value: Value = round(middle) if parameter.is_whole else middle
        if value != parameter.default:
            values[parameter.name] = value
    return values


def decide(plan: Plan, study: optuna.Study, evaluator: Evaluator, say: Say) -> Result:
    """Compare what the search proposes with the defaults on storms and seeds that it has not seen."""
    complete, allowed = _complete(study), allowed_trials(study)
    default_score = next((trial.value for trial in complete if _is_default(trial, plan.parameters)), None)
    values = middle_of_best(allowed, plan.parameters) if allowed else {}
    gain = None
    if values and plan.held_out:
        say("held-out storms: the defaults and what is proposed, in turn")
        gain = _gain(plan, values, evaluator)
    return Result(
        values=values,
        trials=len(complete),
        refused=len(complete) - len(allowed),
        default_score=float("nan") if default_score is None else default_score,
        best_score=allowed[0].value if allowed and allowed[0].value is not None else float("nan"),
        gain=gain,
        sensitivity=sensitivity_of(study),
    )


def _gain(plan: Plan, values: dict[str, Value], evaluator: Evaluator) -> Gain:
    default: list[float] = []
    candidate: list[float] = []
    for of_default, of_candidate in zip(plan.held_out_jobs({}), plan.held_out_jobs(values), strict=True):
        # In turn, so that what the machine does meanwhile falls on both.
        first, second = evaluator.run([of_default, of_candidate])
        default.append(first.value)
        # A candidate that breaks a rule of safety has lost, whatever it gains.
        candidate.append(second.value if second.is_allowed else FAILED)
    again = evaluator.run([plan.held_out_jobs({})[0]] * NOISE_RUNS)
    return Gain(tuple(default), tuple(candidate), pstdev([default[0], *(score.value for score in again)]))


def _is_default(trial: FrozenTrial, parameters: Sequence[Parameter]) -> bool:
    return all(trial.params.get(parameter.name) == parameter.default for parameter in parameters)


def sensitivity_of(study: optuna.Study) -> dict[str, float]:
    """Return each parameter's part in what made trials good (PED-ANOVA), largest first."""
    values = [trial.value for trial in _complete(study)]
    if len(values) < TRIALS_FOR_SENSITIVITY or all(a == b for a, b in pairwise(values)):
        return {}
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
