"""``stage=ptq``: quantise without training, from some training images and none of their labels."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from micronet_cli import checkpoint, distributed
from micronet_cli.allocator import share_freed_memory
from micronet_cli.compression.quantization.layer_by_layer import LayerByLayer
from micronet_cli.compression.quantization.post_training import HISTORY, PostTraining, PostTrainingQuantization
from micronet_cli.data.eval_batch import images_together
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.layers.finite import NotFinite
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run
from micronet_cli.stages.beginning import log_starting_accuracy
from micronet_cli.stages.compress import attach_compressors, logged_rule_table
from micronet_cli.stages.eval import evaluate_network
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.training.interrupt import StopRequest

log = logging.getLogger(__name__)
SAVED_EVERY = 20  # times what saving takes


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
    batches = []
    # On a GPU too: both networks wait at a layer, beside these images.
    together = images_together(network.spec, torch.device("cpu"))
    for batch, _ in loader.batches():
        batches += batch.split(together)
    if not batches:
        raise UserError("data: not one image could be read")
    return batches


def refine(job: Job, network: Network, calibrated: Calibrated) -> None:
    """Round and correct layer after layer, with the time that is left; from the saved state where the run resumes.

    Raises:
        NotFinite: what a layer gives is not.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    work = calibrated.sweep.layer_by_layer(network.model, job.run.directory, job.seed)
    if work.left_out:
        log.warning("rounded to the nearest, not corrected: %s", ", ".join(work.left_out))
    saved = SavedLayers(job.run, work)
    saved.restore()
    share_freed_memory()
    pace = Pace(work.costs(), work.done)
    stop = StopRequest("layer")
    total = len(work.names)
    bar = tqdm(total=total, initial=work.done, desc="ptq", unit="layer", dynamic_ncols=True, disable=None)
    log_above_bar = nullcontext() if bar.disable else logging_redirect_tqdm()
    with stop, log_above_bar, bar:
        for line in work.run(calibrated.batches):
            number = work.done
            job.run.record({"kind": "layer", "step": number, **line})
            errors = f"error {line['error_before']:.4f} -> {line['error']:.4f}"
            log.info("layer %d/%d %s: %s, %.0f s left", number, total, line["layer"], errors, pace.seconds_left(number))
            bar.update()
            saved.save(always=stop.asked)
            if stop.asked and number < total:
                raise Interrupted(f"stopped after layer {number} of {total}")


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


class SavedLayers:
    """The layers that are finished, in the run's directory: what a resumed run goes on from.

    Saving takes at most a small part of the time.
    """

    def __init__(self, run: Run, work: LayerByLayer) -> None:
        self._run = run
        self._work = work
        self._due = 0.0

    def save(self, always: bool = False) -> None:
        """Write them, unless it was done a moment ago."""
        started = time.perf_counter()
        is_last = self._work.done == len(self._work.names)
        if started < self._due and not always and not is_last:
            return
        checkpoint.save_state(self._run.claim(self._run.state), self._work.state())
        ended = time.perf_counter()
        self._due = ended + (ended - started) * SAVED_EVERY

    def restore(self) -> None:
        """Go back to them, where the run resumes and there are any.

        Raises:
            UserError: the file is damaged, or of another network.
        """
        if not self._run.resume or not self._run.state.is_file():
            return
        path = self._run.state
        state = checkpoint.load_state(path)
        try:
            self._work.restore(state)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"resume=true: the state in {str(path)!r} is of another network ({reason}); "
                "use the run's own config, or leave resume out to start afresh"
            ) from None
        done = self._work.done
        self._run.rewind_history(lambda line: line["step"] <= done)
        log.info("%d of %d layers are done", done, len(self._work.names))
