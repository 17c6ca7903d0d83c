"""What ``stage=ptq`` begins with: a network that is pruned if asked, and whose quantisers know their ranges."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from micronet_cli.compression.compressor import Compressor
from micronet_cli.compression.quantization.post_training import PostTraining, PostTrainingQuantization
from micronet_cli.data.eval_batch import images_together
from micronet_cli.errors import UserError
from micronet_cli.explore.in_float import float_weights
from micronet_cli.network import Network
from micronet_cli.stages.compress import attach_compressors, logged_rule_table
from micronet_cli.stages.job import Job
from micronet_cli.stages.prune_once import check_rules, chosen_pruner, prune_once

log = logging.getLogger(__name__)
FEW_BITS = 4


@dataclass(frozen=True)
class Calibrated:
    """A network whose ranges are set.

    Attributes:
        sweep: what rounds and corrects it, layer after layer.
        rules: layer -> the rules and targets for it.
        batches: the training images that the ranges come from.
        weights: layer -> its weight in float.
    """

    sweep: PostTrainingQuantization
    rules: dict[str, dict[str, Any]]
    batches: list[Tensor]
    weights: dict[str, Tensor]

    @property
    def images(self) -> int:
        """How many training images it has seen."""
        return sum(len(batch) for batch in self.batches)


def calibrate(job: Job, network: Network, settings: PostTraining, device: torch.device) -> Calibrated:
    """Prune if asked, attach the quantisers and set their ranges.

    Raises:
        ValueError: the network has a part that cannot be quantised or pruned so, or what a layer gives is not finite.
    """
    sweep = settings.prepare(network.model, network.spec.size)
    network.model.to(device).eval()
    sweep.reference.to(device)
    compressors: list[Compressor] = []
    batches: list[Tensor] = []
    if chosen_pruner(job) is not None:
        check_rules(job, network)
        batches = calibration_batches(job, network, settings.images, device)
        masks = prune_once(job, network, sweep, batches)
        compressors.append(masks)
    compressors += attach_compressors(job, network, ["quantize"])
    rules = logged_rule_table(compressors, network)
    warn_of_nearest(settings, rules)
    batches = batches or calibration_batches(job, network, settings.images, device)
    network.model.to(device)
    weights: dict[str, Tensor] = {}
    if job.parts.quantize is not None:
        images = sum(len(batch) for batch in batches)
        log.info(
            "%d pairs of layers equalised, biases absorbed in %d; ranges from %d images",
            len(sweep.pairs),
            len(sweep.absorbed),
            images,
        )
        # Before ranges get their gains.
        weights = float_weights(network.model)
        sweep.calibrate(network.model, batches)
    return Calibrated(sweep, rules, batches, weights)


def warn_of_nearest(settings: PostTraining, rules: Mapping[str, Mapping[str, Any]]) -> None:
    """Where few bits are rounded to the nearest."""
    few = 0
    for columns in rules.values():
        bits = [columns.get("weight_bits"), columns.get("activation_bits")]
        few += any(number is not None and number <= FEW_BITS for number in bits)
    if settings.adaround is None and few:
        log.warning(
            "ptq.adaround=null: %d layers of %d bits or fewer are rounded to the nearest, which costs accuracy, and "
            "without ptq.correct_bias most of it where layers are depthwise; the agreement at the end says how much",
            few,
            FEW_BITS,
        )


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
    batches = []
    # On a GPU too: both networks wait at a layer, beside these images.
    together = images_together(network.spec, torch.device("cpu"))
    for batch, _ in loader.batches():
        batches += batch.split(together)
    if not batches:
        raise UserError("data: not one image could be read")
    return batches
