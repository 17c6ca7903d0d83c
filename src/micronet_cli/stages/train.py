"""Training with whatever compressors and objective are switched on: ``stage=train``, ``prune``, ``qat``."""

import logging
from typing import Any

import torch

from micronet_cli import distributed
from micronet_cli.errors import UserError
from micronet_cli.network import Network
from micronet_cli.stages.compress import UNPACKED, attach_compressors, logged_rule_table
from micronet_cli.stages.eval import evaluate_network
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.training.objectives import CrossEntropy, Objective
from micronet_cli.training.trainer import Trainer

log = logging.getLogger(__name__)


def check_teacher(job: Job) -> None:
    """A teacher without weights teaches noise: that is for dry runs, in which the student has none either.

    Raises:
        UserError: a trained student would get an untrained teacher.
    """
    distill = job.parts.distill
    model = job.parts.model
    if distill is None or distill.teacher.trained:
        return
    if job.init_from or model.weights or model.pretrained:
        raise UserError(
            "distill.teacher.weights=None: a trained student needs a trained teacher; "
            "give distill.teacher.weights=<file or run directory> or distill.teacher.pretrained=true"
        )
    log.warning("a dry run: neither the teacher nor the student has trained weights")


def check_batches(job: Job) -> None:
    """Processes share a batch evenly.

    Raises:
        UserError: they could not.
    """
    processes = distributed.world_size()
    batch = job.parts.data.batch_size
    if batch % processes:
        raise UserError(f"data.batch_size={batch}: {processes} processes need a multiple of {processes}")


def run(job: Job) -> dict[str, Any]:
    """Train, select on val, report on test."""
    trainer = job.parts.trainer
    reported_split = job.parts.eval.split
    device = trainer.torch_device()
    job.require_splits("train", "val", reported_split)
    check_teacher(job)
    check_batches(job)
    network = job.network(new_classifier=True)
    if network.packed is not None:
        raise UserError(f"init_from={job.init_from!r}: a packed network is not trained; {UNPACKED}")
    compressors = attach_compressors(job, network)
    rules = logged_rule_table(compressors, network)
    score_network(job, network, rules)  # an operation without a price ends the run here, not after it
    network.model.to(device)
    objective = objective_of(job, network, device)
    train = job.loader(network, "train", device)
    val = job.loader(network, "val", device)
    log.info("%d training images, %d val images, on %s", train.images, val.images, device)
    best = Trainer(trainer, job.parts.optim, network, objective, compressors, train, val, job.run).run()
    reported = job.loader(network, reported_split, device)
    metrics = evaluate_network(job, network, reported)
    metrics["val_top1"] = best["val_top1"]
    metrics["best_epoch"] = best["epoch"]
    metrics["chosen_by"] = "val"
    log.info("kept: epoch %d, chosen by val top-1 %.2f %%", best["epoch"] + 1, best["val_top1"])
    report = score_network(job, network, rules)
    job.save(network, metrics)
    return metrics | report.metrics()


def objective_of(job: Job, network: Network, device: torch.device) -> Objective:
    """What training minimises: the distillation group's objective, or plain cross-entropy."""
    smoothing = job.parts.trainer.label_smoothing
    if job.parts.distill is None:
        return CrossEntropy(smoothing)
    return job.parts.distill.objective(network, device, smoothing)
