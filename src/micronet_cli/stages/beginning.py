"""What a stage begins with: the network that it got, and how good that is already."""

import logging

import torch

from micronet_cli.network import Network
from micronet_cli.stages.eval import evaluate_network
from micronet_cli.stages.job import Job

log = logging.getLogger(__name__)
# Enough to see weights that do not work, and soon done; differences of some points are noise.
IMAGES = 128


def log_starting_accuracy(job: Job, network: Network, split: str, device: torch.device) -> None:
    """Measure on some images of a split what weights from elsewhere are worth; a run's own record is in its file."""
    model = job.parts.model
    if job.init_from or not (model.weights or model.pretrained):
        return
    loader = job.parts.data.sample(split, IMAGES, network.spec, device, job.seed, network.classes)
    metrics = evaluate_network(job, network, loader)
    log.info("starting top-1 %.2f %% on %d images of %s", metrics["top1"], metrics["images"], split)
