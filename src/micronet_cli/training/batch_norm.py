"""BatchNorm's running statistics: frozen, or computed again."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from micronet_cli.distributed import average_batch_norm, raise_anywhere
from micronet_cli.layers.finite import FiniteOutputs, NotFinite
from micronet_cli.torch_internals import BatchNorm


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Every BatchNorm that keeps running statistics."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None]


def freeze_batch_norm(model: nn.Module) -> None:
    """Let BatchNorm use its running statistics and leave them as they are, though the model trains."""
    for module in batch_norms(model):
        module.eval()


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running statistics by their means over ``batches``, with all else in evaluation mode.

    Once a mask, a range or an average of weights has changed, the statistics that were tracked before no longer fit.

    Args:
        model: any network; it is left in evaluation mode.
        batches: images ``[N, C, H, W]``.

    Raises:
        UserError: an output is not finite.
    """
    model.eval()
    momenta = {module: module.momentum for module in batch_norms(model)}
    for module in momenta:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
        module.train()
    problem = None
    try:
        _run(model, batches)
    except NotFinite as error:
        problem = f"trainer.reestimate_bn_batches: the output is not finite, first in {error}; set it to null"
    raise_anywhere(problem)
    for module, momentum in momenta.items():
        module.momentum = momentum
    model.eval()
    average_batch_norm(model)


def _run(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Show the network all of them.

    Raises:
        NotFinite: an output is not.
    """
    outputs = FiniteOutputs(model)
    for images in batches:
        outputs.add(images, model(images))
    outputs.finish()
