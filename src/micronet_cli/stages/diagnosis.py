"""What quantisation has done to the predictions, and which layers did it: the end of ``stage=ptq``."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from micronet_cli.explore.diagnosis import Diagnosis, Row
from micronet_cli.functional.logit_distance import LogitDistance
from micronet_cli.stages.job import Job
from micronet_cli.tables import text_table

log = logging.getLogger(__name__)
FILE = "diagnosis.csv"
SHOWN = 5
MEASURED = 10  # at least
# Of the calibration images, so that a diagnosis takes a small part of the time that they took.
AGREEMENT_PART = 4
LAYERS_PART = 16
FEWEST = 8
MOST = 64


def diagnosed(
    job: Job,
    diagnosis: Diagnosis,
    batches: Sequence[Tensor],
    rules: Mapping[str, Mapping[str, Any]],
    on_all: bool,
    measured: int,
) -> tuple[dict[str, Any], list[Row]]:
    """The figures for metrics.json, and a row a layer, the worst first; writes ``diagnosis.csv``.

    Args:
        job: of the stage.
        diagnosis: of the quantised network.
        batches: calibration images ``[N, C, H, W]``.
        rules: layer -> what the quantiser has for it.
        on_all: count the predictions of all these images, and not of some.
        measured: layers that are put back to float, at least.
    """
    total = sum(len(batch) for batch in batches)
    compared = batches if on_all else [spread(batches, max(FEWEST, total // AGREEMENT_PART))]
    distance = diagnosis.distance(compared)
    figures = _figures(distance)
    if not math.isfinite(distance.error):
        return figures, []  # the evaluation says where that begins
    looked_at = spread(batches, min(MOST, max(FEWEST, total // LAYERS_PART)))
    rows = []
    for row in diagnosis.rows(looked_at, max(MEASURED, measured)):
        bits = rules.get(row["layer"], {})
        rows.append(
            {
                "layer": row["layer"],
                "weight_bits": bits.get("weight_bits"),
                "activation_bits": bits.get("activation_bits"),
                **row,
            }
        )
    job.run.write_csv(FILE, rows)
    _tell(distance, rows, len(looked_at))
    return figures, rows


def spread(batches: Sequence[Tensor], number: int) -> Tensor:
    """So many of the batches' images ``[N, C, H, W]``, or all, at equal distances: they may be in the classes' order."""
    total = sum(len(batch) for batch in batches)
    number = min(number, total)
    wanted = {place * total // number for place in range(number)}
    chosen = []
    place = 0
    for batch in batches:
        for image in batch:
            if place in wanted:
                chosen.append(image)
            place += 1
    return torch.stack(chosen)


def _figures(distance: LogitDistance) -> dict[str, Any]:
    decibels = distance.decibels
    return {
        "float_agreement": 100 * (1 - distance.share_changed),
        "logits_snr_db": decibels if math.isfinite(decibels) else None,
        "agreement_images": distance.images,
    }


def _tell(distance: LogitDistance, rows: Sequence[Row], images: int) -> None:
    """The log's lines."""
    log.info(
        "predictions as in float: %.2f %% of %d calibration images; logits' signal over error %.1f dB",
        100 * (1 - distance.share_changed),
        distance.images,
        distance.decibels,
    )
    shown = []
    for row in rows[:SHOWN]:
        shown.append(
            {
                "layer": row["layer"],
                "weight": _bits(row["weight_bits"]),
                "input": _bits(row["activation_bits"]),
                "error saved": f"{100 * row['error_saved']:.1f} %",
                "predictions saved": f"{100 * row['predictions_saved']:.1f} %",
            }
        )
    if shown:
        table = text_table(shown)
        log.info("worst layers, each put back to float alone, on %d of these images (%s: all)\n%s", images, FILE, table)


def _bits(bits: float | None) -> str:
    return "float" if bits is None else f"{bits:g}"
