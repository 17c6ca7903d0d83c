"""``stage=ptq``: quantise without training, from some training images and none of their labels."""

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
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
from micronet_cli.stages.beginning import log_starting_accuracy
from micronet_cli.stages.compress import attach_compressors, logged_rule_table
from micronet_cli.stages.eval import evaluate_network
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network

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
    processes = distributed.world_size()
    if processes > 1:
        raise UserError(f"trainer.devices={processes}: stage=ptq runs in one process")
    job.require_splits("train", job.parts.eval.split)
    return settings


@dataclass(frozen=True)
class Calibrated:
    """A network whose ranges are set.

    Attributes:
        sweep: what rounds and corrects it, layer after layer.
        rules: layer -> the rules and targets for it.
        batches: the training images that the ranges come from.
    """

    sweep: PostTrainingQuantization
    rules: dict[str, dict[str, Any]]
    batches: list[Tensor]

    @property
    def images(self) -> int:
        """How many training images it has seen."""
        return sum(len(batch) for batch in self.batches)


def run(job: Job) -> dict[str, Any]:
    """Quantise, report on test."""
    settings = checked_settings(job)
    device = job.parts.trainer.torch_device()
    network = job.network()
    log_starting_accuracy(job, network, job.parts.eval.split, device)
    try:
        calibrated = calibrate(job, network, settings, device)
    except ValueError as error:
        raise UserError(f"stage=ptq: {error}") from None
    network.compressors = [*network.compressors, HISTORY]
    if settings.adaround is not None or settings.correct_bias:
        try:
            refine(job, network, calibrated)
        except NotFinite as error:
            raise UserError(f"stage=ptq: {error}") from None
    loader = job.loader(network, job.parts.eval.split, device)
    metrics = evaluate_network(job, network, loader)
    metrics["calibration_images"] = calibrated.images
    report = score_network(job, network, calibrated.rules)
    job.save(network, metrics)
    return metrics | report.metrics()


def calibrate(job: Job, network: Network, settings: PostTraining, device: torch.device) -> Calibrated:
    """Attach the quantisers and set their ranges.

    Raises:
        ValueError: the network has a part that cannot be quantised so.
    """
    sweep = settings.prepare(network.model, network.spec.size)
    quantizers = attach_compressors(job, network)
    rules = logged_rule_table(quantizers, network)
    batches = calibration_batches(job, network, settings.images, device)
    calibrated = Calibrated(sweep, rules, batches)
    network.model.to(device).eval()
    sweep.reference.to(device)
    log.info("%d pairs of layers equalised; ranges from %d images", len(sweep.pairs), calibrated.images)
    sweep.calibrate(network.model, batches)
    return calibrated


def calibration_batches(job: Job, network: Network, images: int, device: torch.device) -> list[Tensor]:
    """Images drawn by the seed from train, as evaluation would see them."""
    loader = job.parts.data.sample(
        split="train",
        images=images,
        spec=network.spec,
        device=device,
        seed=job.seed,
        classes=network.classes,
    )
    batches = [batch for batch, _ in loader.batches()]
    if not batches:
        raise UserError("data: not one image could be read")
    return batches


def refine(job: Job, network: Network, calibrated: Calibrated) -> None:
    """Round and correct layer after layer, with the time that is left."""
    sweep = calibrated.sweep
    names, left_out = sweep.layers(network.model)
    if left_out:
        log.warning("rounded to the nearest, not corrected: %s", ", ".join(left_out))
    started = time.perf_counter()
    bar = tqdm(total=len(names), desc="ptq", unit="layer", dynamic_ncols=True, disable=None)
    log_above_bar = nullcontext() if bar.disable else logging_redirect_tqdm()
    with log_above_bar, bar:
        refined = sweep.run(network.model, calibrated.batches, job.seed)
        for number, line in enumerate(refined, start=1):
            job.run.record({"kind": "layer", "step": number, **line})
            seconds_a_layer = (time.perf_counter() - started) / number
            errors = f"error {line['error_before']:.4f} -> {line['error']:.4f}"
            left = f"{seconds_a_layer * (len(names) - number):.0f} s left"
            log.info("layer %d/%d %s: %s, %s", number, len(names), line["layer"], errors, left)
            bar.update()
