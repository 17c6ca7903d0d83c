"""``stage=score``: what a checkpoint scores, or what a recipe would."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from micronet_cli.errors import UserError
from micronet_cli.layers.finite import non_finite_layer
from micronet_cli.network import Network
from micronet_cli.scoring import score_with
from micronet_cli.scoring.score_report import ScoreReport
from micronet_cli.stages.compress import attach_compressors, rule_table
from micronet_cli.stages.job import Job

log = logging.getLogger(__name__)
NEEDS_DATA = False
MAKES_NETWORK = False


def score_network(job: Job, network: Network, rules: Mapping[str, Mapping[str, Any]] | None = None) -> ScoreReport:
    """The live network's score; writes layers.csv, joined with the compressors' ``rules``.

    Raises:
        UserError: an operation has no price, or an option of the score group does not fit the network.
    """
    try:
        report = score_with(network.model, job.parts.score, network.spec.size)
    except ValueError as error:
        raise UserError(f"score: {error}") from None
    rows: dict[str, dict[str, Any]] = {}
    for row in report.rows():
        rows[row.layer] = asdict(row)
    for layer, columns in (rules or {}).items():
        rows.setdefault(layer, {"layer": layer}).update(columns)
    job.run.write_csv("layers.csv", list(rows.values()))
    return report


def check_finite(network: Network) -> None:
    """Raises UserError where a network has weights or statistics of which zeros and bits say nothing."""
    spoilt = non_finite_layer(network.model)
    if spoilt is not None:
        raise UserError(f"score: zeros and bits say nothing about {spoilt}")


def run(job: Job) -> dict[str, Any]:
    """Score ``init_from``; on top of it, or of a fresh network, the config's compressors at their final targets."""
    network = job.network(with_data=False)
    check_finite(network)
    compressors = attach_compressors(job, network)
    for compressor in compressors:
        compressor.update(1, 1)
    rules = rule_table(compressors, network)
    report = score_network(job, network, rules)
    log.info("%s", report.table())
    if job.run.writes:
        job.run.write_bytes("score.png", report.figure())
    return dict(report.metrics())
