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


def check(config: DictConfig) -> dict[str, Any]:
    """The config's parts, and the runs that are there.

    Raises:
        UserError: a mistake in the config, no run, or plotly is not installed.
    """
    parts = check_config(config)
    if importlib.util.find_spec("plotly") is None:
        raise UserError("stage=report: plotly is not installed; pip install 'micronet-cli[report]'")
    return parts | {"runs": run_report.find_runs(config.runs or DEFAULT)}


def run(job: Job) -> dict[str, Any]:
    """Write report.html."""
    found = run_report.read_runs(job.checked["runs"])
    job.run.write_text("report.html", run_report.html(found, job.runs or DEFAULT))
    for file, reason in found.problems.items():
        log.warning("%s: %s", file, reason)
    log.info("%d runs: %s", len(found.runs), job.run.directory / "report.html")
    return {"runs": len(found.runs), "unreadable": len(found.problems)}
