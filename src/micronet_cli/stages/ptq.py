"""``stage=ptq``: quantise without training, from some training images and none of their labels; prune as well."""

import logging
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from micronet_cli import distributed
from micronet_cli.allocator import share_freed_memory
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.compression.quantization.post_training import HISTORY, PostTraining
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.explore.diagnosis import Diagnosis
from micronet_cli.explore.in_float import quantized_layers
from micronet_cli.layers.finite import NotFinite
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.network import Network
from micronet_cli.stages.beginning import log_starting_accuracy
from micronet_cli.stages.calibration import Calibrated, calibrate
from micronet_cli.stages.diagnosis import diagnosed
from micronet_cli.stages.eval import evaluate_network
from micronet_cli.stages.job import Job
from micronet_cli.stages.prune_once import chosen_pruner
from micronet_cli.stages.rescue import Rescue
from micronet_cli.stages.saved_layers import SavedLayers
from micronet_cli.stages.score import score_network
from micronet_cli.training.interrupt import StopRequest

log = logging.getLogger(__name__)


def checked_settings(job: Job) -> PostTraining:
    """The ``ptq`` group; fails before the heavy work.

    Raises:
        UserError: a part is switched off that the stage is about, the pruning needs training, or several processes.
    """
    settings = job.parts.ptq
    if settings is None:
        raise UserError("ptq=none: stage=ptq needs an option, as in ptq=<name>")
    pruner = chosen_pruner(job)
    if job.parts.quantize is None and pruner is None:
        raise UserError("quantize=none: stage=ptq needs an option, as in quantize=<name>, or prune=obc")
    processes = distributed.world_size()
    if processes > 1:
        raise UserError(f"trainer.devices={processes}: stage=ptq runs in one process")
    job.require_splits("train", job.parts.eval.split)
    return settings


def run(job: Job) -> dict[str, Any]:
    """Prune if asked, quantise, report on test."""
    settings = checked_settings(job)
    device = job.parts.trainer.torch_device()
    network = job.network()
    log_starting_accuracy(job, network, job.parts.eval.split, device)
    rescue = Rescue(job, settings, network)
    goes_on = True
    while goes_on:
        job, network = rescue.begin()
        calibrated, corrected = post_trained(job, network, settings, device, rescue)
        diagnosis = Diagnosis(network.model, calibrated.sweep.reference, calibrated.weights, corrected)
        findings = diagnosed(
            job,
            diagnosis,
            calibrated.batches,
            calibrated.rules,
            thorough=rescue.is_on,
            measured=settings.rescue or 0,
        )
        goes_on = rescue.goes_on(network, findings)
    loader = job.loader(network, job.parts.eval.split, device)
    metrics = evaluate_network(job, network, loader) | findings.metrics()
    metrics["calibration_images"] = calibrated.images
    report = score_network(job, network, calibrated.rules)
    metrics |= rescue.metrics(metrics | report.metrics())
    job.save(network, metrics)
    return metrics | report.metrics()


def post_trained(
    job: Job, network: Network, settings: PostTraining, device: torch.device, rescue: Rescue
) -> tuple[Calibrated, Collection[str]]:
    """Quantise the network in place; the layers whose output has the mean that it has in float.

    Raises:
        UserError: the network has a part that cannot be quantised so, or what a layer gives is not finite.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    try:
        calibrated = calibrate(job, network, settings, device)
    except ValueError as error:
        raise UserError(f"stage=ptq: {error}") from None
    if job.parts.quantize is None:
        return calibrated, ()
    network.compressors = [*network.compressors, HISTORY]
    if not settings.refines:
        return calibrated, ()
    try:
        work = refine(job, network, calibrated, rescue)
    except NotFinite as error:
        raise UserError(f"stage=ptq: {error}") from None
    if not settings.correct_bias:
        return calibrated, ()
    layers = compressible_layers(network.model).keys() & quantized_layers(network.model).keys()
    return calibrated, layers - set(work.left_out)


def refine(job: Job, network: Network, calibrated: Calibrated, rescue: Rescue) -> LayerByLayer:
    """Round and correct layer after layer, with the time that is left; from the saved state where the run resumes.

    Raises:
        NotFinite: what a layer gives is not.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    work = calibrated.sweep.layer_by_layer(network.model, job.run.directory, job.seed)
    if work.left_out:
        log.warning("rounded to the nearest, not corrected: %s", ", ".join(work.left_out))
    saved = SavedLayers(job.run, work, rescue.state())
    saved.restore()
    share_freed_memory()
    pace = Pace(work.costs(calibrated.batches), work.done)
    stop = StopRequest("layer")
    total = len(work.names)
    bar = tqdm(total=total, initial=work.done, desc="ptq", unit="layer", dynamic_ncols=True, disable=None)
    log_above_bar = nullcontext() if bar.disable else logging_redirect_tqdm()
    with stop, log_above_bar, bar:
        for line in work.run(calibrated.batches):
            number = work.done
            job.run.record({"kind": "layer", "step": saved.first_step + number, **line})
            place = f"layer {number}/{total} {line['layer']}"
            errors = f"error {line['error_before']:.4f} -> {line['error']:.4f}"
            seconds_left = pace.seconds_left(number)
            log.info("%s: %s, %.0f s left", place, errors, seconds_left)
            bar.update()
            saved.save(always=stop.asked)
            if stop.asked and number < total:
                raise Interrupted(f"stopped after layer {number} of {total}")
    return work


class Pace:
    """How long the layers that are left will take.

    Args:
        costs: of each layer, in any unit.
        done: layers that were finished before.
    """

    def __init__(self, costs: Sequence[float], done: int) -> None:
        self._costs = costs
        self._first = done
        self._started = time.perf_counter()

    def seconds_left(self, done: int) -> float:
        """By what the layers cost that were done since."""
        seconds = time.perf_counter() - self._started
        spent = sum(self._costs[self._first : done])
        return seconds * sum(self._costs[done:]) / spent
