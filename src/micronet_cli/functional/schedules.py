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
class AGP:
    """Automated gradual pruning, cubic: 1 - (1 - t)^3 (Zhu and Gupta, arXiv 1710.01878, equation 1).

    Attributes:
        begin: progress in [0, 1] at which t = 0.
        end: progress in (begin, 1] at which t = 1.
        interval: the value is held constant between multiples of this progress; 0 changes it at every step.

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
        if progress >= self.end:
            return 1.0
        if self.interval:
            # The small shift keeps 0.3 // 0.1 from being 2.
            progress = self.begin + self.interval * ((progress - self.begin + 1e-9) // self.interval)
        t = max(progress - self.begin, 0.0) / (self.end - self.begin)
        return 1 - (1 - t) ** 3


def _check_window(begin: float, end: float, interval: float) -> None:
    if not 0 <= begin < end <= 1:
        raise ValueError(f"begin={begin}: 0 <= begin < end <= 1 is wanted, end is {end}")
    if not 0 <= interval <= 1:
        raise ValueError(f"interval={interval}: a fraction of the run in [0, 1] is wanted")
