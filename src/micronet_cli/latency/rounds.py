"""Several calls in turns, round by round, so that what disturbs the machine for a while disturbs all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Key = TypeVar("Key")
Calls = Mapping[Key, Callable[[], object]]
LEAST_ROUNDS = 5
TRIALS = 3
# A turn of a fast call repeats it for so long: the caches are its own by then, as where it runs alone.
TURN_SECONDS = 0.01


@dataclass(frozen=True)
class Spread:
    """The median of some values and the quartiles around it."""

    first_quartile: float
    median: float
    third_quartile: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value.

        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
        Spread(first_quartile=2.0, median=3.0, third_quartile=4.0)
        """
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


def times_faster(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """The median over rounds of how many times the reference's seconds the call's are; rounds of both count.

    >>> times_faster([1.0, 2.0, 1.0], [2.0, 6.0, 2.0])
    2.0
    """
    rounds = zip(seconds, reference, strict=False)
    return statistics.median(theirs / ours for ours, theirs in rounds)


@dataclass
class Rounds:
    """Calls that take turns.

    Attributes:
        calls: key -> what is measured.
        clock: tells seconds.
        seconds: key -> seconds of one call in each round so far; an interrupted round may lack the last keys.
    """

    calls: Calls
    clock: Callable[[], float] = time.perf_counter
    seconds: dict = field(default_factory=dict)

    def measure(self, seconds: float) -> None:
        """As many rounds as fit into ``seconds``, 5 at least; each begins with the next of the calls."""
        self.seconds |= {key: [] for key in self.calls}
        repeats = {key: self._repeats(call) for key, call in self.calls.items()}
        keys = list(self.calls)
        started = self.clock()
        rounds = 0
        while rounds < LEAST_ROUNDS or self.clock() - started < seconds:
            first = rounds % len(keys)
            for key in keys[first:] + keys[:first]:
                self.seconds[key].append(self._turn(self.calls[key], repeats[key]))
            rounds += 1

    def _repeats(self, call: Callable[[], object]) -> int:
        """How often it is called in a turn, by the fastest of some calls: others may have been held up."""
        call()
        taken = min(self._times(call, TRIALS))
        if taken <= 0:
            return 1
        return max(1, math.ceil(TURN_SECONDS / taken))

    def _turn(self, call: Callable[[], object], repeats: int) -> float:
        """Seconds of one call: the median, for other work may hold up some of them."""
        if repeats > 1:
            call()
        return statistics.median(self._times(call, repeats))

    def _times(self, call: Callable[[], object], repeats: int) -> list[float]:
        times = []
        for _ in range(repeats):
            started = self.clock()
            call()
            times.append(self.clock() - started)
        return times
