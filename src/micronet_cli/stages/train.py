"""Training with whatever compressors and objective are switched on: ``stage=train``, ``prune``, ``qat``."""

import logging
from typing import Any

from micronet_cli import distributed
from micronet_cli.errors import UserError
from micronet_cli.stages.compress import UNPACKED, attach_compressors, rule_table
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.tables import text_table
from micronet_cli.training.evaluate import evaluate
from micronet_cli.training.objectives import CrossEntropy
from micronet_cli.training.trainer import Trainer

log = logging.getLogger(__name__)


def check_teacher(job: Job) -> None:
    """A teacher without weights teaches noise: that is for dry runs, in which the student has none either.

    Raises:
        UserError: a trained student would get an untrained teacher.
    """
    distill, model = job.parts.distill, job.parts.model
    if distill is None or distill.teacher.trained:
        return
    if job.init_from or model.weights or model.pretrained:
        raise UserError(
            "distill.teacher.weights=None: a trained student needs a trained teacher; "
            "give distill.teacher.weights=<file or run directory> or distill.teacher.pretrained=true"
        )
    log.warning("a dry run: neither the teacher nor the student has trained weights")


def run(job: Job) -> dict[str, Any]:
    """Train, select on val, report on test."""
    trainer, distill = job.parts.trainer, job.parts.distill
    device = trainer.torch_device()
    job.require_splits("train", "val", job.parts.eval.split)
    check_teacher(job)
    processes, batch = distributed.world_size(), job.parts.data.batch_size
    if batch % processes:
        raise UserError(f"data.batch_size={batch}: {processes} processes need a multiple of {processes}")
    network = job.network()
    if network.packed is not None:
        raise UserError(f"init_from={job.init_from!r}: a packed network is not trained; {UNPACKED}")
    compressors = attach_compressors(job, network)
    if rules := rule_table(compressors, network):
        log.info("%s", text_table([{"layer": layer} | columns for layer, columns in rules.items()]))
    score_network(job, network, rules)  # an operation without a price ends the run here, not after it
    network.model.to(device)
    objective = (
        distill.objective(network, device, trainer.label_smoothing)
        if distill
        else CrossEntropy(trainer.label_smoothing)
    )
    train, val = (job.loader(network, split, device) for split in ("train", "val"))
    log.info("%d training images, %d val images, on %s", train.images, val.images, device)
    best = Trainer(trainer, job.parts.optim, network, objective, compressors, train, val, job.run).run()
    network.model.to(device)
    evaluation = job.parts.eval
    metrics = evaluate(network.model, job.loader(network, evaluation.split, device), evaluation.amp)
    network.model.cpu()
    metrics |= {"val_top1": best["val_top1"], "best_epoch": best["epoch"], "split": evaluation.split}
    metrics["chosen_by"] = "val"
    log.info("kept: epoch %d, chosen by val top-1 %.2f %%", best["epoch"] + 1, best["val_top1"])
    report = score_network(job, network, rules)
    job.save(network, metrics)
    return metrics | report.metrics()
