"""``stage=eval``: accuracy of a checkpoint or of ``model=``'s weights."""

from typing import Any

from micronet_cli.stages.job import Job
from micronet_cli.stages.score import score_network
from micronet_cli.training.evaluate import evaluate


def run(job: Job) -> dict[str, Any]:
    """Evaluate on ``eval.split``, every image once."""
    evaluation = job.parts.eval
    device = job.parts.trainer.torch_device()
    job.require_splits(evaluation.split)
    network = job.network()
    report = score_network(job, network)  # an operation without a price, or another image size, ends the run here
    loader = job.loader(network, evaluation.split, device)
    metrics = evaluate(network.model.to(device), loader, evaluation.amp)
    metrics |= {"split": evaluation.split, "corrupt": len(loader.corrupt)}
    network.model.cpu()
    job.save(network, metrics)
    return metrics | report.metrics()
