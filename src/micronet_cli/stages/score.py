"""``stage=score``: what a checkpoint scores, or what a recipe would."""

import logging
from typing import Any

from micronet_cli.checkpoint import Network
from micronet_cli.stages.job import Job

log = logging.getLogger(__name__)


def score_network(job: Job, network: Network) -> dict[str, Any]:
    """Score the live network."""
    return {}


def run(job: Job) -> dict[str, Any]:
    """Score."""
    return {}
