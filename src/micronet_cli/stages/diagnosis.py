"""What quantisation has done to the predictions, and which layers did it: the end of ``stage=ptq``."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
# Of the calibration images, so that the diagnosis takes a small part of the time that they took.
COMPARED_PART = 4
LAYERS_PART = 16
FEWEST = 8
MOST = 64


@dataclass(frozen=True)
class Findings:
    """What quantisation has done.

    Attributes:
        distance: of the logits from those in float, over some calibration images.
        rows: of the layers, the worst first; empty where none is quantised, or the logits are not finite.
    """

    distance: LogitDistance
    rows: list[Row]

    def metrics(self) -> dict[str, Any]:
        """For metrics.json."""
        decibels = self.distance.decibels
        return {
            "float_agreement": 100 * (1 - self.distance.share_changed),
            "logits_snr_db": decibels if math.isfinite(decibels) else None,
            "agreement_images": self.distance.images,
        }


def diagnosed(
    job: Job,
    diagnosis: Diagnosis,
    batches: Sequence[Tensor],
    rules: Mapping[str, Mapping[str, Any]],
    thorough: bool,
    measured: int,
) -> Findings:
    """Write ``diagnosis.csv``, tell the worst layers.

    Args:
        job: of the stage.
        diagnosis: of the quantised network.
        batches: calibration images ``[N, C, H, W]``.
        rules: layer -> what the quantiser has for it.
        thorough: all of these images are compared and more of them looked at layer by layer: much depends on it.
        measured: layers that are put back to float, at least.
    """
    total = sum(len(batch) for batch in batches)
    compared = batches
    if not thorough:
        some = spread(batches, max(FEWEST, total // COMPARED_PART))
        compared = some.split(len(batches[0]))
    distance = diagnosis.distance(compared)
    if not math.isfinite(distance.error):
        return Findings(distance, [])  # the evaluation says where that begins
    if not diagnosis.layers:  # pruned only
        return Findings(distance, [])
    part = COMPARED_PART if thorough else LAYERS_PART
    looked_at = spread(batches, min(MOST, max(FEWEST, total // part)))
    rows = diagnosis.rows(looked_at, max(MEASURED, measured))
    lines = []
    for row in rows:
        rule = rules.get(row.layer, {})
        bits = {key: rule.get(key) for key in ("weight_bits", "activation_bits")}
        lines.append({"layer": row.layer} | bits | asdict(row))
    job.run.write_csv(FILE, lines)
    _tell(distance, lines, len(looked_at))
    return Findings(distance, rows)


def spread(batches: Sequence[Tensor], number: int) -> Tensor:
    """So many images ``[N, C, H, W]``, or all, at equal distances: they may be in the order of their classes."""
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


def _tell(distance: LogitDistance, lines: Sequence[Mapping[str, Any]], images: int) -> None:
    """The log's lines."""
    log.info(
        "predictions as in float: %.2f %% of %d calibration images; logits' signal over error %.1f dB",
        100 * (1 - distance.share_changed),
        distance.images,
        distance.decibels,
    )
    shown = []
    for line in lines[:SHOWN]:
        if line["error_saved"] is None:
            continue
        shown.append(
            {
                "layer": line["layer"],
                "weight": _bits(line["weight_bits"]),
                "input": _bits(line["activation_bits"]),
                "error saved": f"{100 * line['error_saved']:.1f} %",
                "predictions saved": f"{line['predictions_saved']} of {images}",
            }
        )
    if shown:
        log.info("worst layers, each put back to float alone (%s: all)\n%s", FILE, text_table(shown))


def _bits(bits: float | None) -> str:
    return "float" if bits is None else f"{bits:g}"
