"""Training with whatever compressors and objective are switched on: ``stage=train``, ``prune``, ``qat``."""

import logging
from typing import Any

from micronet_cli import checkpoint
from micronet_cli.config import to_plain
from micronet_cli.runs import write_text
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.training.evaluate import evaluate
from micronet_cli.training.objectives import CrossEntropy
from micronet_cli.training.trainer import Fit

log = logging.getLogger(__name__)
COMPRESSORS = ("prune", "quantize")


def attach_compressors(job: Job, network: checkpoint.Network) -> list[Any]:
    """Attach the config's compressors to the network (prune, then quantise) and note them in its history."""
    attached = []
    for group in COMPRESSORS:
        if (compressor := job.parts[group]) is not None:
            compressor.attach(network.model)
            network.compressors = [*network.compressors, to_plain(job.config[group])]
            attached.append(compressor)
    return attached


def layer_rows(compressors: list[Any], network: checkpoint.Network) -> list[dict[str, Any]]:
    """Layer -> rule -> target, a row a layer."""
    rows: dict[str, dict[str, Any]] = {}
    for compressor in compressors:
        for layer, columns in compressor.table(network.model).items():
            rows.setdefault(layer, {"layer": layer}).update(columns)
    return list(rows.values())


def run(job: Job) -> dict[str, Any]:
    """Train, select on val, report on test."""
    trainer, distill = job.parts["trainer"], job.parts["distill"]
    device = trainer.torch_device()
    network = job.network()
    compressors = attach_compressors(job, network)
    for row in (rows := layer_rows(compressors, network)):
        log.info("  ".join(f"{key}={value}" for key, value in row.items()))
    score_network(job, network)  # an operation without a price ends the run here, not after it
    network.model.to(device)
    objective = (
        distill.objective(network, device, trainer.label_smoothing)
        if distill
        else CrossEntropy(trainer.label_smoothing)
    )
    train, val = (job.loader(network, split, device) for split in ("train", "val"))
    log.info("%d training images, %d val images, on %s", train.images, val.images, device)
    best = Fit(trainer, job.parts["optim"], network, objective, compressors, train, val, job.run).run()
    network.model.to(device)
    evaluation = job.parts["eval"]
    metrics = evaluate(network.model, job.loader(network, evaluation.split, device), evaluation.amp)
    network.model.cpu()
    metrics |= {"val_top1": best["val_top1"], "best_epoch": best["epoch"], "split": evaluation.split}
    report = score_network(job, network)
    checkpoint.save(job.run.best, network, metrics)
    return metrics | report
