"""``stage=shrink``: the same network without the channels that it computes for nothing."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

from micronet_cli.compression.pruning.dead_channels import find_dead_channels
from micronet_cli.errors import UserError
from micronet_cli.stages.compress import UNPACKED
from micronet_cli.stages.job import Job
from micronet_cli.stages.node import Stage
from micronet_cli.stages.score import score_network
from micronet_cli.training.evaluate import evaluate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node(Stage):
    """The node ``stage`` here.

    Attributes:
        multiple: channels that stay in a layer are a multiple of it.
    """

    multiple: int = 1

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"multiple={self.multiple}: must be at least 1")


def run(job: Job[Node]) -> dict[str, Any]:
    """Find dead channels, take them out, evaluate where there is data, save and score.

    Raises:
        UserError: the network is packed.
    """
    network = job.network()
    if network.packed is not None:
        raise UserError(f"init_from={job.init_from!r}: a packed network is not shrunk; {UNPACKED}")
    before = network.params
    found = find_dead_channels(network.model, network.spec.size, job.node.multiple)
    removal = found.removal
    if found.left:
        layers = ", ".join(found.left)
        log.warning("dead channels stay, as what is between layers depends on their number: %s", layers)
    if removal.outputs:
        removal.attach(network.model)
        kind = type(removal)
        target = f"{kind.__module__}.{kind.__qualname__}"
        config = {"_target_": target, **asdict(removal)}
        network.compressors = [*network.compressors, config]
    else:
        log.info(
            "Nothing to remove: every channel is needed, or a rounding of its readers depends on it. Whole filters go "
            "with prune=filter, before they are quantised."
        )
    after = network.params
    removed = before - after
    log.info("%d of %d parameters went; channels of %d layers", removed, before, len(removal.outputs))
    metrics: dict[str, Any] = {"removed_params": removed, "params": after}
    evaluation = job.parts.eval
    if not job.parts.data.problems((evaluation.split,)):
        device = job.parts.trainer.torch_device()
        loader = job.loader(network, evaluation.split, device)
        metrics |= evaluate(network.model.to(device), loader, evaluation.amp)
        network.model.cpu()
        metrics["split"] = evaluation.split
    job.save(network, metrics)
    score = score_network(job, network, removal.table(network.model))
    return metrics | score.metrics()
