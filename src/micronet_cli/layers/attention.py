"""Attention by its single operations, where torch's fused one cannot be followed."""

from torch import nn


def unfuse_attention(model: nn.Module) -> None:
    """Let timm's attention compute its products and its softmax one after the other: the same function.

    timm's modules choose by their attribute ``fused_attn``.
    """
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
