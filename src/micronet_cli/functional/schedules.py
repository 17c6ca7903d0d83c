"""Schedules map a run's progress in [0, 1] to the fraction of a target in [0, 1]."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """The whole target from ``begin`` on.

    >>> Constant()(0.0), Constant(begin=0.5)(0.4)
    (1.0, 0.0)
    """

    begin: float = 0.0

    def __post_init__(self) -> None:
        _check_window(self.begin, 1.0, 0.0)

    def __call__(self, progress: float) -> float:
        """Fraction of the target at ``progress``."""
        return 1.0 if progress >= self.begin else 0.0


@dataclass(frozen=True)
class OneShot:
    """Nothing, then everything at once ``at`` that progress; 1 is the run's end, without a step to recover.

    >>> OneShot(at=0.25)(0.24), OneShot(at=0.25)(0.25)
    (0.0, 1.0)
    """

    at: float

    def __post_init__(self) -> None:
        if not 0 <= self.at <= 1:
            raise ValueError(f"at={self.at}: must be a fraction of the run in [0, 1]")

    def __call__(self, progress: float) -> float:
        """Fraction of the target at ``progress``."""
        return 1.0 if progress >= self.at else 0.0


@dataclass(frozen=True)
class Linear:
    """Equal amounts in equal times: t.

    Attributes:
        begin: progress in [0, 1] at which t = 0.
        end: progress in (begin, 1] at which t = 1.
        interval: the value is held constant between multiples of this progress; 0 changes it at every step.

    >>> Linear(end=1.0)(0.25), Linear(begin=0.5, end=1.0)(0.75), Linear()(0.5)
    (0.25, 0.5, 1.0)
    >>> Linear(end=1.0, interval=0.25)(0.49)
    0.25
    """

    begin: float = 0.0
    end: float = 0.5
    interval: float = 0.0

    def __post_init__(self) -> None:
        _check_window(self.begin, self.end, self.interval)

    def __call__(self, progress: float) -> float:
        """Fraction of the target at ``progress``."""
        return _time(progress, self.begin, self.end, self.interval)


@dataclass(frozen=True)
class AGP:
    """Automated gradual pruning, cubic: 1 - (1 - t)^3 (Zhu and Gupta, arXiv 1710.01878, equation 1).

    Attributes:
        begin, end, interval: as ``Linear`` has them.

    >>> AGP(end=1.0)(0.5), AGP()(0.25), AGP()(0.5)
    (0.875, 0.875, 1.0)
    >>> AGP(interval=0.1)(0.19) == AGP(interval=0.1)(0.1)
    True
    """

    begin: float = 0.0
    end: float = 0.5
    interval: float = 0.0

    def __post_init__(self) -> None:
        _check_window(self.begin, self.end, self.interval)

    def __call__(self, progress: float) -> float:
        """Fraction of the target at ``progress``."""
        t = _time(progress, self.begin, self.end, self.interval)
        return 1 - (1 - t) ** 3


@dataclass(frozen=True)
class Exponential:
    """What is missing halves in equal times: (1 - 2^(-rate t)) / (1 - 2^(-rate)).

    With ``rate = -log2(1 - sparsity)`` the fraction of weights kept shrinks by equal factors in equal times.

    Attributes:
        begin, end, interval: as ``Linear`` has them.
        rate: halvings in the window, above 0; towards 0 it becomes linear, AGP is near to 4.

    >>> Exponential(end=1.0, rate=1.0)(1.0), Exponential(end=1.0, rate=2.0)(0.5) == 0.5 / 0.75
    (1.0, True)
    """

    begin: float = 0.0
    end: float = 0.5
    interval: float = 0.0
    rate: float = 3.0

    def __post_init__(self) -> None:
        _check_window(self.begin, self.end, self.interval)
        if not 0 < self.rate <= 100:
            raise ValueError(f"rate={self.rate}: must be a number of halvings in (0, 100]")

    def __call__(self, progress: float) -> float:
        """Fraction of the target at ``progress``."""
        t = _time(progress, self.begin, self.end, self.interval)
        halved = 2 ** (-self.rate * t)
        halved_at_end = 2**-self.rate
        return (1 - halved) / (1 - halved_at_end)


def _time(progress: float, begin: float, end: float, interval: float) -> float:
    """Time t in [0, 1] within the window, on the stairs of ``interval``."""
    if progress >= end:
        return 1.0
    if interval:
        # The small shift keeps 0.3 // 0.1 from being 2.
        progress = begin + interval * ((progress - begin + 1e-9) // interval)
    return max(progress - begin, 0.0) / (end - begin)


def _check_window(begin: float, end: float, interval: float) -> None:
    if not 0 <= begin < end <= 1:
        raise ValueError(f"begin={begin}: 0 <= begin < end <= 1 must hold, but end is {end}")
    if not 0 <= interval <= 1:
        raise ValueError(f"interval={interval}: must be a fraction of the run in [0, 1]")
