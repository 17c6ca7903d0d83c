"""Networks of the 2019 challenge's entries: the benchmark's way from a shipped experiment to its network, once each."""

from functools import cache

from challenge import trace_of

from micronet_cli.trace.trace import Trace


@cache
def entry(experiment: str) -> Trace:
    return trace_of(experiment)
