"""BatchNorm's running statistics: left alone, or taken anew."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from micronet_cli.distributed import average_batch_norm
from micronet_cli.torch_internals import BatchNorm


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Every BatchNorm that keeps running statistics."""
    kinds = (BatchNorm,)
    return [m for m in model.modules() if isinstance(m, kinds) and m.running_mean is not None]


def freeze_batch_norm(model: nn.Module) -> None:
    """Let BatchNorm use its running statistics and leave them as they are, though the model trains."""
    for module in batch_norms(model):
        module.eval()


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running statistics by their means over ``batches``, the rest in evaluation mode.

    Args:
        model: any network.
        batches: images ``[N, C, H, W]``.

    What moved after the statistics were tracked (a mask, a range, an average of weights) no longer fits them.
    """
    model.eval()
    momenta = {module: module.momentum for module in batch_norms(model)}
    for module in momenta:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
        module.train()
    for images in batches:
        model(images)
    for module, momentum in momenta.items():
        module.momentum = momentum
    model.eval()
    average_batch_norm(model)
