"""``stage=eval``: accuracy of a checkpoint or of ``model=``'s weights."""

from typing import Any

from micronet_cli.data.loader import Loader
from micronet_cli.network import Network
from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.training.evaluate import evaluate


def run(job: Job) -> dict[str, Any]:
    """Evaluate on ``eval.split``, every image once."""
    device = job.parts.trainer.torch_device()
    split = job.parts.eval.split
    job.require_splits(split)
    network = job.network()
    report = score_network(job, network)  # an operation without a price, or another image size, ends the run here
    loader = job.loader(network, split, device)
    metrics = evaluate_network(job, network, loader)
    metrics["corrupt"] = len(loader.corrupt)
    job.save(network, metrics)
    return metrics | report.metrics()


def evaluate_network(job: Job, network: Network, loader: Loader) -> dict[str, Any]:
    """The figures on ``loader``'s images, which are ``eval.split``; the network is in main memory afterwards."""
    evaluation = job.parts.eval
    network.model.to(loader.device)
    metrics = evaluate(network.model, loader, evaluation.amp)
    network.model.cpu()
    return metrics | {"split": evaluation.split}
