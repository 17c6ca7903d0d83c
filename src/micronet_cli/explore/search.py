"""The ``search`` config group: a space of settings, and the objectives that its trials are compared by."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from micronet_cli.errors import UserError, near_misses
from micronet_cli.explore.storage import problem
from micronet_cli.passwords import without_password

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


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, both included; whole numbers where all of them are given as such.

    Attributes:
        log: equal chances on a logarithmic scale; excludes ``step``.
        step: distance of neighbours; None: 1 for whole numbers, any value between for others.

    Raises:
        ValueError: something is no finite number, the range is empty, or ``log`` and ``step`` do not fit it.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        numbers = [self.low, self.high]
        if self.step is not None:
            numbers.append(self.step)
        for number in numbers:
            if not _is_finite_number(number):
                raise ValueError("low, high and step must be finite numbers")
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.step is not None and self.step <= 0:
            raise ValueError("step must be above 0")
        if self.step is not None and self.log:
            raise ValueError("log and step exclude each other; take one of them")
        if self.log and self.low <= 0:
            raise ValueError("log needs low above 0")

    @property
    def ends(self) -> tuple[Plain, Plain]:
        """Lowest and highest."""
        return self.low, self.high


def dimensions(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Choices | Interval]]:
    """Setting -> its values; a key may be dotted or nested, and null takes a setting out of the space.

    >>> list(dimensions({"prune": {"rules.conv.sparsity": {"low": 0.5, "high": 0.9}}, "seed": [0, 1]}))
    [('prune.rules.conv.sparsity', Interval(low=0.5, high=0.9, log=False, step=None)), ('seed', Choices(values=(0, 1)))]

    Raises:
        ValueError: something is neither a list of plain values nor a range.
    """
    for name, values in space.items():
        key = f"{prefix}{name}"
        if _is_range(values):
            try:
                yield key, Interval(**values)
            except ValueError as error:
                raise ValueError(f"space.{key}={dict(values)}: {error}") from None
        elif isinstance(values, Mapping) and not RANGE_KEYS & values.keys():
            yield from dimensions(values, f"{key}.")
        elif _is_list_of_plain_values(values):
            yield key, Choices(tuple(values))
        elif values is not None:
            raise ValueError(f"space.{key}={values!r}: must be a list of plain values or {{low: x, high: y}}")


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
        split: the images that accuracies are measured on, ``val`` unless there is a reason: what chooses among many
            networks flatters the one that it chooses.
        storage: where the study is, for several workers: a file ``FILE.journal`` on a directory that they share, or a
            database's URL; None: a file of the run's own.
        grace_seconds: a worker of a shared study that was silent for so long counts as dead, above 0.

    Raises:
        ValueError: there is nothing to search or to compare by, or the space or the storage is wrong.
    """

    space: dict[str, Any]
    stage: str = "prune"
    trials: int = 20
    sampler: SamplerName = "TPESampler"
    objectives: dict[str, Literal["maximize", "minimize"] | None] = field(default_factory=dict)
    split: Literal["train", "val", "test"] = "val"
    storage: str | None = field(default=None, repr=False)
    grace_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials={self.trials}: must be at least 1")
        if self.stage == "search":
            raise ValueError("stage='search': a trial must be another stage, one that reports the objectives")
        if not self.directions:
            raise ValueError("objectives={}: must name at least one figure of metrics.json")
        if not self.dimensions:
            raise ValueError("space={}: must hold at least one setting, as in search.space.seed=[0,1]")
        if not self.grace_seconds > 0:
            raise ValueError(f"grace_seconds={self.grace_seconds}: must be above 0")
        if self.storage is not None:
            wrong = problem(self.storage)
            if wrong:
                raise ValueError(f"storage={without_password(self.storage)!r}: {wrong}")

    @property
    def directions(self) -> dict[str, str]:
        """Key of metrics.json -> ``maximize`` or ``minimize``."""
        return {key: direction for key, direction in self.objectives.items() if direction}

    @property
    def dimensions(self) -> dict[str, Choices | Interval]:
        """Setting -> its values."""
        return dict(dimensions(self.space))

    def values(self, metrics: Mapping[str, Any]) -> list[float]:
        """The objectives of a run, in the order of ``directions``.

        Raises:
            UserError: one is missing, or is no finite number.
        """
        found = []
        for key in self.directions:
            value = metrics.get(key)
            if not isinstance(value, int | float) or not math.isfinite(value):
                numbers = [name for name, other in metrics.items() if isinstance(other, int | float)]
                reason = f"{value} is no finite number" if key in metrics else "no such figure in metrics.json"
                raise UserError(f"search.objectives.{key}: {reason}{near_misses(key, numbers)}")
            found.append(float(value))
        return found


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _is_range(values: Any) -> bool:
    return isinstance(values, Mapping) and {"low", "high"} <= values.keys() <= RANGE_KEYS


def _is_list_of_plain_values(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    return all(isinstance(value, Plain) for value in values)
