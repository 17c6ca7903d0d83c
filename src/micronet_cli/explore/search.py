"""The ``search`` config group: a space of settings, the objectives, and the study that proposes trials.

Optuna (Akiba et al., arXiv 1907.10902) does the searching; it is imported when a study is opened.
"""

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from micronet_cli.errors import UserError, near_misses

Plain = bool | int | float | str | None
SamplerName = Literal["TPESampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler", "RandomSampler"]
RANGE_KEYS = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Choices:
    """One of some plain values."""

    values: tuple[Plain, ...]

    @property
    def ends(self) -> tuple[Plain, Plain]:
        """First and last."""
        return self.values[0], self.values[-1]

    def distribution(self, optuna: ModuleType) -> Any:
        """As Optuna says it."""
        return optuna.distributions.CategoricalDistribution(self.values)


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, both included; whole numbers where all of them are given as such.

    Attributes:
        log: equal chances on a logarithmic scale; excludes ``step``.
        step: distance of neighbours; None: 1 for whole numbers, any value between for others.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.low, self.high] if self.step is None else [self.low, self.high, self.step]
        if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers):
            raise ValueError("low, high and step are numbers")
        if not self.low < self.high:
            raise ValueError("low has to be below high")
        if self.step is not None and (self.log or self.step <= 0):
            raise ValueError("step is above 0 and excludes log")
        if self.log and self.low <= 0:
            raise ValueError("log wants low above 0")

    @property
    def ends(self) -> tuple[Plain, Plain]:
        """Lowest and highest."""
        return self.low, self.high

    def distribution(self, optuna: ModuleType) -> Any:
        """As Optuna says it."""
        if all(isinstance(x, int) for x in (self.low, self.high, self.step or 1)):
            return optuna.distributions.IntDistribution(self.low, self.high, log=self.log, step=self.step or 1)
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def dimensions(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Choices | Interval]]:
    """Setting -> its values; a key may be dotted or nested, and null takes a setting out of the space.

    >>> list(dimensions({"prune": {"rules.conv.sparsity": {"low": 0.5, "high": 0.9}}, "seed": [0, 1]}))
    [('prune.rules.conv.sparsity', Interval(low=0.5, high=0.9, log=False, step=None)), ('seed', Choices(values=(0, 1)))]

    Raises:
        ValueError: something is neither a list of plain values nor a range.
    """
    for name, values in space.items():
        key = f"{prefix}{name}"
        if isinstance(values, Mapping) and {"low", "high"} <= values.keys() <= RANGE_KEYS:
            try:
                yield key, Interval(**values)
            except ValueError as error:
                raise ValueError(f"space.{key}={dict(values)}: {error}") from None
        elif isinstance(values, Mapping) and not RANGE_KEYS & values.keys():
            yield from dimensions(values, f"{key}.")
        elif isinstance(values, list) and values and all(isinstance(value, Plain) for value in values):
            yield key, Choices(tuple(values))
        elif values is not None:
            raise ValueError(f"space.{key}={values!r}: a list of plain values or {{low: x, high: y}} is wanted")


@dataclass(frozen=True)
class Search:
    """What to search, and how.

    Attributes:
        space: setting, as on the command line -> a list of choices or ``{low, high, log, step}``; a group's options can
            be choices too.
        stage: what a trial runs.
        trials: how many, failed ones included.
        sampler: by its name in ``optuna.samplers``.
        objectives: key of metrics.json -> ``maximize`` or ``minimize``; null takes one out.
    """

    space: dict[str, Any]
    stage: str = "prune"
    trials: int = 20
    sampler: SamplerName = "TPESampler"
    objectives: dict[str, Literal["maximize", "minimize"] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials={self.trials}: at least 1 is wanted")
        if self.stage == "search":
            raise ValueError("stage='search': a stage that ends with the objectives is wanted")
        if not self.directions:
            raise ValueError("objectives={}: at least one figure of metrics.json is wanted")
        if not self.dimensions:
            raise ValueError("space={}: at least one setting is wanted, as in search.space.seed=[0,1]")

    @property
    def directions(self) -> dict[str, str]:
        """Key of metrics.json -> ``maximize`` or ``minimize``."""
        return {key: direction for key, direction in self.objectives.items() if direction}

    @property
    def dimensions(self) -> dict[str, Choices | Interval]:
        """Setting -> its values."""
        return dict(dimensions(self.space))

    def values(self, metrics: Mapping[str, Any]) -> list[float]:
        """The objectives of a run.

        Raises:
            UserError: one is missing, or is no finite number.
        """
        for key in self.directions:
            value = metrics.get(key)
            if not isinstance(value, int | float) or not math.isfinite(value):
                numbers = [name for name, other in metrics.items() if isinstance(other, int | float)]
                said = "no such figure in metrics.json" if key not in metrics else f"{value} is no finite number"
                raise UserError(f"search.objectives.{key}: {said}{near_misses(key, numbers)}")
        return [float(metrics[key]) for key in self.directions]


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes:
        number: its directory's; kept when a trial that was cut short is run again.
        settings: setting -> value.
        trial: Optuna's.
    """

    number: int
    settings: dict[str, Plain]
    trial: Any


class Study:
    """Trials in an SQLite file: what was told is kept, whatever happens to the process.

    Proposals depend on the seed, the number of the trial and the trials told so far, so that a study that is gone on
    with proposes what an uninterrupted one would have.
    """

    def __init__(self, search: Search, path: Path, seed: int) -> None:
        """Open or create; trials that were cut short or failed are queued again.

        Raises:
            UserError: Optuna is not installed, or the file's study is another one.
        """
        self.search, self.seed, self.optuna = search, seed, load_optuna()
        self.space = {key: values.distribution(self.optuna) for key, values in search.dimensions.items()}
        self.study = self.optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name="search",
            directions=list(search.directions.values()),
            load_if_exists=True,
        )
        self._check(path)
        for number, trial in self._latest().items():
            if trial.state.name == "RUNNING":
                self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            if trial.state.name in ("RUNNING", "FAIL"):
                self.study.enqueue_trial(trial.params, user_attrs={"number": number})

    def _check(self, path: Path) -> None:
        described = {key: self.optuna.distributions.distribution_to_json(d) for key, d in self.space.items()}
        wanted = {"objectives": self.search.directions, "space": described, "stage": self.search.stage}
        known = self.study.user_attrs.get("search", wanted)
        self.study.set_user_attr("search", known)
        if changed := [key for key, value in wanted.items() if known[key] != value]:
            raise UserError(
                f"search.{changed[0]}: the study in {str(path)!r} has another; leave resume out to start afresh"
            )

    def _latest(self) -> dict[int, Any]:
        """Number -> the latest attempt."""
        return {trial.user_attrs.get("number", trial.number): trial for trial in self.study.get_trials(deepcopy=False)}

    def next(self) -> Proposal | None:
        """The next trial; None when there have been enough."""
        latest = self._latest()
        waiting = any(trial.state.name == "WAITING" for trial in latest.values())
        if not waiting and len(latest) >= self.search.trials:
            return None
        self.study.sampler = self._sampler(len(latest))
        trial = self.study.ask(self.space)
        number = trial.user_attrs.get("number", max(latest, default=-1) + 1)
        trial.set_user_attr("number", number)
        return Proposal(number, dict(trial.params), trial)

    def tell(self, proposal: Proposal, values: list[float] | None, note: dict[str, Any]) -> None:
        """A trial's objectives, None where it failed; ``note`` is kept with it."""
        proposal.trial.set_user_attr("note", note)
        if values is None:
            self.study.tell(proposal.trial, state=self.optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(proposal.trial, values)

    def notes(self) -> list[dict[str, Any]]:
        """What was told with every trial's latest attempt that ended, by number."""
        ended = {
            trial.user_attrs["number"]: trial.user_attrs["note"]
            for trial in self.study.get_trials(deepcopy=False)
            if "note" in trial.user_attrs
        }
        return [ended[number] for number in sorted(ended)]

    def front(self) -> list[int]:
        """Numbers of the trials that no other is better than in everything, by the first objective, best first."""
        sign = -1 if next(iter(self.search.directions.values())) == "maximize" else 1
        best = sorted(self.study.best_trials, key=lambda trial: sign * trial.values[0])
        return [trial.user_attrs["number"] for trial in best]

    def _sampler(self, number: int) -> Any:
        samplers = self.optuna.samplers
        own = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.search.sampler == "QMCSampler":
            # One sequence for all trials; what it has no place for, choices above all, is drawn.
            drawn = samplers.RandomSampler(seed=own)
            return samplers.QMCSampler(seed=self.seed, independent_sampler=drawn, warn_independent_sampling=False)
        return getattr(samplers, self.search.sampler)(seed=own)


def load_optuna() -> ModuleType:
    """Optuna, quiet.

    Raises:
        UserError: it is not installed.
    """
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise UserError("stage=search: optuna is not installed; pip install 'micronet-cli[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
