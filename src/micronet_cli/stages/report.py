"""``stage=report``: one HTML page about many runs."""

import importlib.util
import logging
from typing import Any

from omegaconf import DictConfig

from micronet_cli.config import check_config
from micronet_cli.errors import UserError
from micronet_cli.explore import run_report
from micronet_cli.stages.job import Job

log = logging.getLogger(__name__)
DEFAULT = "outputs/**"
ONE_PROCESS = True  # nothing is computed
MAKES_NETWORK = False


def check(config: DictConfig) -> dict[str, Any]:
    """The config's parts.

    Raises:
        UserError: a mistake in the config, or plotly is not installed.
    """
    parts = check_config(config)
    plotly = importlib.util.find_spec("plotly")
    if plotly is None:
        raise UserError("stage=report: plotly is not installed; pip install 'micronet-cli[report]'")
    return parts


def run(job: Job) -> dict[str, Any]:
    """Write report.html.

    Raises:
        UserError: no run is there.
    """
    pattern = job.runs or DEFAULT
    directories = run_report.find_runs(pattern)
    found = run_report.read_runs(directories)
    page = run_report.html(found, pattern)
    job.run.write_text("report.html", page)
    for file, reason in found.problems.items():
        log.warning("%s: %s", file, reason)
    written = job.run.directory / "report.html"
    log.info("%d runs: %s", len(found.runs), written)
    return {
        "runs": len(found.runs),
        "unreadable": len(found.problems),
        "refused": len(found.refused),
    }
