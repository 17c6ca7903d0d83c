"""Where a number went wrong."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.training.batch_norm import batch_norms


def first_non_finite(model: nn.Module, images: Tensor) -> str:
    """The first layer whose output is not finite, by running ``images`` once more; the network is spent afterwards."""
    model.eval()  # other processes do not take ranges along
    for norm in batch_norms(model):
        norm.train()
    found: list[str] = []

    def watch(name: str) -> Callable:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return f"layer {found[0]}" if found else "the objective (every layer's output is finite)"
