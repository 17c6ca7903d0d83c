"""Where a number went wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.training.batch_norm import batch_norms


def explain_non_finite(loss: float, step: int, source: str, last: Path) -> str:
    """The message for a loss that is not finite: where it was seen first, and the ways out."""
    return (
        f"trainer: the loss is {loss} at step {step}, first seen in {source}; "
        f"lower optim.lr, or set trainer.clip_grad_norm; the last checkpoint is {last}"
    )


def non_finite_source(model: nn.Module, images: Tensor) -> str:
    """The first parameter that is not finite, else the first layer whose output is not.

    The network is spent afterwards.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"parameter {name}"
    return first_non_finite(model, images)


def first_non_finite(model: nn.Module, images: Tensor) -> str:
    """The first layer whose output is not finite, by running ``images`` once more; the network is spent afterwards."""
    # Evaluation mode keeps the observers still: in training mode they would wait for processes that are not here.
    model.eval()
    for norm in batch_norms(model):
        norm.train()
    found: list[str] = []

    def watch(name: str) -> Callable:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = []
    for name, module in model.named_modules():
        is_leaf = next(module.children(), None) is None
        if is_leaf:
            handles.append(module.register_forward_hook(watch(name)))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    if not found:
        return "the objective (every layer's output is finite)"
    return f"layer {found[0]}"
