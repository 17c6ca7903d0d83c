"""``stage=sensitivity``: what it costs to prune or to quantise each layer alone."""

import logging
from typing import Any

from micronet_cli.explore.figure import draw
from micronet_cli.explore.sensitivity import table
from micronet_cli.stages.compress import check_unpacked
from micronet_cli.stages.job import Job
from micronet_cli.tables import text_table
from micronet_cli.training.evaluate import evaluate

log = logging.getLogger(__name__)
SPLIT = "val"  # what a budget chooses by may not be what its networks are reported on
MAKES_NETWORK = False


def run(job: Job) -> dict[str, Any]:
    """Try every point on held-back images; the unchanged network's accuracy and a checkpoint of it."""
    settings = job.parts.sensitivity
    device = job.parts.trainer.torch_device()
    job.require_splits(SPLIT)
    network = job.network()
    check_unpacked(network, "stage=sensitivity")
    network.model.to(device)
    loader = job.loader(network, SPLIT, device)
    if settings.images is not None:
        loader = loader.some(settings.images)
    metrics = evaluate(network.model, loader)
    rows = settings.measure(network.model, loader.batches, job.seed)
    for row in rows:
        row["split"] = SPLIT
    found = table(rows)
    job.run.write_csv("sensitivity.csv", rows)
    log.info("KL divergence of the output, each layer alone\n%s", text_table(found))
    if job.run.writes:
        caption = f"KL divergence of the output, each layer alone; {metrics['images']} images of {SPLIT}"
        job.run.write_bytes("sensitivity.png", draw(found, caption))
    network.model.cpu()
    job.save(network, metrics)
    return metrics | {"split": SPLIT, "points": len(rows), "method": settings.method}
