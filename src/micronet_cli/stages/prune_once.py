"""Pruning without training, as a part of ``stage=ptq``."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from micronet_cli.allocator import share_freed_memory
from micronet_cli.compression.pruning.masks import Masks
from micronet_cli.compression.pruning.one_shot import OneShot
from micronet_cli.compression.pruning.second_order import SecondOrderPruner
from micronet_cli.compression.quantization.post_training import PostTrainingQuantization
from micronet_cli.errors import UserError
from micronet_cli.layers.copies import copied
from micronet_cli.network import Network
from micronet_cli.stages.compress import attach_compressors
from micronet_cli.stages.job import Job

log = logging.getLogger(__name__)
HISTORY = "micronet_cli.compression.pruning.masks.Masks"

KIND = "pruned"  # of a line of history


def chosen_pruner(job: Job) -> SecondOrderPruner | None:
    """The ``prune`` group, None where it is none.

    Raises:
        UserError: it is one that needs training.
    """
    pruner = job.parts.prune
    if pruner is None or isinstance(pruner, SecondOrderPruner):
        return pruner
    raise UserError(
        "prune: stage=ptq prunes with prune=obc alone, for it does not train; "
        "for any other run stage=prune first and give its run as init_from"
    )


def check_rules(job: Job, network: Network) -> None:
    """Attach the compressors to a copy: a mistake in any rule ends the run before the work.

    Raises:
        UserError: as ``attach_compressors``.
    """
    copy = copied(network.model).cpu()
    attach_compressors(job, replace(network, model=copy))


def prune_once(job: Job, network: Network, sweep: PostTrainingQuantization, batches: Sequence[Tensor]) -> Masks:
    """Prune the network towards ``sweep.reference``, and note its masks, which are returned, in its history.

    A run that resumes does it again, to the same end: what follows judges by the pruned network in float.

    Raises:
        ValueError: a layer cannot be pruned so, or what it gives is not finite.
    """
    pruner = chosen_pruner(job)
    assert pruner is not None
    masks = Masks(pruner.rules)
    masks.attach(network.model)
    rules = job.group_config("prune")["rules"]
    network.compressors = [*network.compressors, {"_target_": HISTORY, "rules": rules}]
    settings = sweep.settings
    work = OneShot(
        sweep.reference,
        network.model,
        sweep.chains,
        pruner,
        settings.rows,
        settings.memory_mb,
        job.run.directory,
        job.seed,
    )
    _prune(job, work, batches)
    return masks


def _prune(job: Job, work: OneShot, batches: Sequence[Tensor]) -> None:
    """Go through the layers; a line of history for each that is pruned."""
    # What another round, or a run that was interrupted here, has done.
    job.run.rewind_history(lambda line: line["kind"] != KIND)
    share_freed_memory()
    bar = tqdm(total=len(work.names), desc="prune", unit="layer", dynamic_ncols=True, disable=None)
    log_above_bar = nullcontext() if bar.disable else logging_redirect_tqdm()
    with log_above_bar, bar:
        for number, line in enumerate(work.run(batches), 1):
            bar.update()
            if "sparsity" not in line:
                continue
            job.run.record({"kind": KIND, "step": 0, **line})
            log.info("layer %d/%d %s: %s", number, len(work.names), line["layer"], _told(line))


def _told(line: dict[str, Any]) -> str:
    sparsity = 100 * line["sparsity"]
    return f"{sparsity:.1f} % pruned, error {line['error_before']:.4f} -> {line['error']:.4f}"
