"""``stage=eval``: accuracy of a checkpoint or of ``model=``'s weights, and what lies behind it."""

import logging
from typing import Any

import torch

from micronet_cli import checkpoint
from micronet_cli.data.named_images import named_images
from micronet_cli.data.protocol import Batches
from micronet_cli.errors import UserError
from micronet_cli.network import Network
from micronet_cli.stages.explain import Explanation
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.training.evaluate import evaluate
from micronet_cli.training.predictions import Predictions, Recorder

log = logging.getLogger(__name__)


def run(job: Job) -> dict[str, Any]:
    """Evaluate on ``eval.split``, every image once."""
    device = job.parts.trainer.torch_device()
    evaluation = job.parts.eval
    job.require_splits(evaluation.split)
    network = job.network()
    other = network_against(job, network)
    report = score_network(job, network)  # an operation without a price, or another image size, ends the run here
    loader = job.loader(network, evaluation.split, device)
    metrics, predictions = recorded(job, network, loader)
    explanation = Explanation(job.run, named_images(loader), network.classes, evaluation.pictures)
    metrics["corrupt"] = len(loader.corrupt)
    metrics |= explanation.explain(predictions)
    log.info(
        "%d of %d classes have images; worst class: %s, %.2f %%; calibration error %.2f %%",
        metrics["classes_with_images"],
        len(network.classes),
        metrics["worst_class"],
        metrics["worst_class_top1"],
        metrics["calibration_error"],
    )
    if other is not None:
        metrics |= compared(job, other, explanation, predictions, device)
    job.save(network, metrics)
    return metrics | report.metrics()


def evaluate_network(job: Job, network: Network, loader: Batches, watch: Recorder | None = None) -> dict[str, Any]:
    """The figures on ``loader``'s images, which are ``eval.split``; the network is in main memory afterwards."""
    evaluation = job.parts.eval
    network.model.to(loader.device)
    metrics = evaluate(network.model, loader, evaluation.amp, watch=watch)
    network.model.cpu()
    return metrics | {"split": evaluation.split}


def recorded(job: Job, network: Network, loader: Batches) -> tuple[dict[str, Any], Predictions]:
    """``evaluate_network``'s figures, and what the network said of every image."""
    recorder = Recorder()
    metrics = evaluate_network(job, network, loader, recorder)
    return metrics, recorder.predictions(named_images(loader))


def network_against(job: Job, network: Network) -> Network | None:
    """The network of ``eval.against``.

    Raises:
        UserError: it is no checkpoint, or knows other classes.
    """
    path = job.parts.eval.against
    if path is None:
        return None
    other = checkpoint.load(path, "eval.against", trust=job.trust)
    if other.classes != network.classes:
        raise UserError(
            f"eval.against={path!r}: its {len(other.classes)} classes are not the {len(network.classes)} of the "
            "network; give a run on the same data"
        )
    return other


def compared(
    job: Job, other: Network, explanation: Explanation, predictions: Predictions, device: torch.device
) -> dict[str, Any]:
    """What has changed against ``other``."""
    loader = job.loader(other, job.parts.eval.split, device)
    figures, before = recorded(job, other, loader)
    changes = explanation.compare(before, predictions)
    against = job.parts.eval.against
    broken, fixed = changes["broken_images"], changes["fixed_images"]
    log.info("against %s (top-1 %.2f %%): %d images broken, %d fixed", against, figures["top1"], broken, fixed)
    return {"against": against, "against_top1": figures["top1"]} | changes
