"""``stage=ptq``: quantise without training, from some training images and none of their labels."""

import logging
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from micronet_cli import distributed
from micronet_cli.compression.quantization.post_training import HISTORY, PostTraining, PostTrainingQuantization
from micronet_cli.errors import UserError
from micronet_cli.layers.finite import NotFinite
from micronet_cli.network import Network
from micronet_cli.stages.compress import attach_compressors, rule_table
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.tables import text_table
from micronet_cli.training.evaluate import evaluate

log = logging.getLogger(__name__)


def checked_settings(job: Job) -> PostTraining:
    """The ``ptq`` group; fails before the heavy work.

    Raises:
        UserError: a part is switched off that the stage is about, pruning is switched on, or several processes.
    """
    settings = job.parts.ptq
    if settings is None:
        raise UserError("ptq=none: stage=ptq needs an option, as in ptq=<name>")
    if job.parts.quantize is None:
        raise UserError("quantize=none: stage=ptq needs an option, as in quantize=<name>")
    if job.parts.prune is not None:
        raise UserError("prune: stage=ptq does not prune; run stage=prune first and give its run as init_from")
    if distributed.world_size() > 1:
        raise UserError(f"trainer.devices={distributed.world_size()}: stage=ptq runs in one process")
    job.require_splits("train", job.parts.eval.split)
    return settings


def run(job: Job) -> dict[str, Any]:
    """Quantise, report on test."""
    settings = checked_settings(job)
    device = job.parts.trainer.torch_device()
    network = job.network()
    try:
        sweep = settings.prepare(network.model, network.spec.size)
        quantizers = attach_compressors(job, network)
        rules = rule_table(quantizers, network)
        log.info("%s", text_table([{"layer": layer} | columns for layer, columns in rules.items()]))
        batches = calibration_batches(job, settings.images, network, device)
        network.model.to(device).eval()
        sweep.reference.to(device)
        log.info("%d pairs of layers equalised; ranges from %d images", len(sweep.pairs), sum(map(len, batches)))
        sweep.calibrate(network.model, batches)
    except ValueError as error:
        raise UserError(f"stage=ptq: {error}") from None
    network.compressors = [*network.compressors, HISTORY]
    if settings.adaround is not None or settings.correct_bias:
        try:
            refine(job, settings, sweep, network, batches)
        except NotFinite as error:
            raise UserError(f"stage=ptq: {error}") from None
    evaluation = job.parts.eval
    metrics = evaluate(network.model, job.loader(network, evaluation.split, device), evaluation.amp)
    metrics |= {"split": evaluation.split, "calibration_images": sum(map(len, batches))}
    network.model.cpu()
    report = score_network(job, network, rules)
    job.save(network, metrics)
    return metrics | report.metrics()


def calibration_batches(job: Job, images: int, network: Network, device: torch.device) -> list[Tensor]:
    """Images drawn by the seed from train, as evaluation would see them."""
    loader = job.parts.data.sample("train", images, network.spec, device, job.seed, network.classes)
    batches = [batch for batch, _ in loader.batches()]
    if not batches:
        raise UserError("data: not one image could be read")
    return batches


def refine(
    job: Job, settings: PostTraining, sweep: PostTrainingQuantization, network: Network, batches: list[Tensor]
) -> None:
    """Round and correct layer after layer, with the time that is left."""
    names, left_out = sweep.layers(network.model)
    if left_out:
        log.warning("rounded to the nearest, not corrected: %s", ", ".join(left_out))
    started = time.perf_counter()
    bar = tqdm(total=len(names), desc="ptq", unit="layer", dynamic_ncols=True, disable=None)
    with nullcontext() if bar.disable else logging_redirect_tqdm(), bar:
        for number, line in enumerate(sweep.run(network.model, batches, job.seed), 1):
            job.run.record({"kind": "layer", "step": number, **line})
            left = (time.perf_counter() - started) / number * (len(names) - number)
            log.info(
                "layer %d/%d %s: error %.4f -> %.4f, %.0f s left",
                number, len(names), line["layer"], line["error_before"], line["error"], left,
            )  # fmt: skip
            bar.update()
