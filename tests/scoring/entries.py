"""Networks of the 2019 challenge's entries, built from the shipped experiments."""

import sys
from functools import cache
from pathlib import Path

from micronet_cli.trace.trace import Trace

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from challenge import trace_of  # noqa: E402  the benchmark's: one way from an experiment to its network


@cache
def entry(experiment: str) -> Trace:
    return trace_of(experiment)
