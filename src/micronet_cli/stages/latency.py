"""``stage=latency``: how fast the network is on the engines that are installed, beside the dense one."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from micronet_cli.artifact.engines.known import installed_engines
from micronet_cli.errors import UserError
from micronet_cli.latency.measurement import Measurement, Row
from micronet_cli.latency.slower import advice, profiles, verdict
from micronet_cli.latency.subjects import COMPRESSED, DENSE, Subject
from micronet_cli.latency.table import metrics, shown
from micronet_cli.stages.job import Job
from micronet_cli.stages.measured import Measured, measured
from micronet_cli.tables import text_table
from micronet_cli.threads import cores

log = logging.getLogger(__name__)
NEEDS_DATA = False
MAKES_NETWORK = False
ONE_PROCESS = True  # several would take each other's time
TAKES_ONNX = True
FILE = "latency.csv"
BUSY = 0.5  # load of each core by other work


def run(job: Job) -> dict[str, Any]:
    """Measure, say why where the network is no faster than the dense one, and what would help.

    Raises:
        UserError: no engine can run the network, or one that is named is not installed.
    """
    latency = job.parts.latency
    engines = installed_engines(latency.engine_names)
    log.info("engines: %s", ", ".join(engine.name for engine in engines))
    _warn_of_too_many(latency.threads)
    _warn_of_others()
    threads_before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as directory:
            found = measured(job, engines, Path(directory))
            rows = _rows(job, found)
    finally:
        torch.set_num_threads(threads_before)
    if not rows:
        raise UserError("latency: no engine runs this network; the warnings above say why")
    return metrics(rows, latency.batch_sizes[0], latency.threads[0])


def _rows(job: Job, found: Measured) -> list[Row]:
    """All rows; they are in the run's directory as soon as their batch size and threads are done, or interrupted."""
    latency = job.parts.latency
    random = np.random.default_rng(job.seed)
    rows: list[Row] = []
    subjects = found.subjects
    for threads in latency.threads:
        for batch_size in latency.batch_sizes:
            images = random.standard_normal((batch_size, *found.size), dtype=np.float32)
            measurement = Measurement(subjects, images, threads)
            try:
                _measure(measurement, latency.seconds)
            finally:
                new = measurement.rows()
                rows += new
                if new:
                    job.run.write_csv(FILE, rows)
                    log.info("%s", text_table(shown(new)))
            _explain(new, measurement, found)
            subjects = [each for each in subjects if each.key not in measurement.failed]
    return rows


def _measure(measurement: Measurement, seconds: float) -> None:
    measurement.prepare()
    measurement.find_peaks()
    log.info(
        "batch %d, threads %d: %d take turns, %.0f s or a little more",
        len(measurement.images), measurement.threads, len(measurement.memory), seconds,
    )  # fmt: skip
    measurement.run(seconds)


def _explain(rows: list[Row], measurement: Measurement, found: Measured) -> None:
    """Say of each row that is no faster than the dense network in its engine why, and what would help."""
    subjects = {each.key: each for each in found.subjects}
    dense = {each.engine.name: each for each in found.subjects if each.network == DENSE}
    for row in rows:
        ratio = row["engine_ratio"]
        if row["network"] != COMPRESSED or ratio is None or not verdict(ratio):
            continue
        subject = subjects[row["network"], row["file"], row["engine"]]
        lines = [f"{subject} is {verdict(ratio)} than the dense network there, {ratio:.2f} times as fast; profiled:"]
        lines += _profiles(subject, dense[row["engine"]], measurement)
        lines += [f"what helps: {line}" for line in advice(subject, found.nature)]
        log.warning("%s", "\n  ".join(lines))


def _profiles(subject: Subject, dense: Subject, measurement: Measurement) -> list[str]:
    try:
        return profiles(subject, dense, measurement.images, measurement.threads)
    except Exception as error:  # an engine's own, of many kinds: the figures stand without it
        return [f"no profile: {error}"]


def _warn_of_too_many(threads: list[int]) -> None:
    available = cores()
    if max(threads) > available:
        log.warning(
            "latency.threads=%s: more than the %d cores of this process wait for each other", threads, available
        )


def _warn_of_others() -> None:
    """Other work takes time that is none of the networks'; taking turns keeps ratios fair, not milliseconds."""
    if not hasattr(os, "getloadavg"):
        return
    load, _, _ = os.getloadavg()
    available = cores()
    if load > BUSY * available:
        log.warning(
            "the machine is busy, load %.1f on %d cores: milliseconds are too long, ratios less", load, available
        )
