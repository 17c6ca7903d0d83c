"""Attention by its single operations: what torch's fused kernel computes, where its products must be seen."""

import torch
from torch import Tensor, nn


def unfuse_attention(model: nn.Module) -> None:
    """Let timm's attention compute its products and its softmax one after the other: the same function.

    timm's modules choose by their attribute ``fused_attn``.
    """
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def unfused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention``, whose arguments these are, as two products and a softmax.

    Args:
        query: ``[..., L, E]``.
        key: ``[..., S, E]``.
        value: ``[..., S, E_v]``.
        attn_mask: broadcast to ``[..., L, S]``; bool (True = attend), or added to what the softmax gets.
        dropout_p: share of the probabilities that are dropped, whatever the mode.
        is_causal: position i attends to 0 .. i.
        scale: of query x key, None: 1 / sqrt(E).
        enable_gqa: several heads of queries (the third last dimension) share one of keys and values.

    Returns:
        ``[..., L, E_v]``.
    """
    if enable_gqa:
        heads = query.shape[-3]
        key = key.repeat_interleave(heads // key.shape[-3], -3)
        value = value.repeat_interleave(heads // value.shape[-3], -3)
    if scale is None:
        scale = query.shape[-1] ** -0.5
    similarities = query * scale @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones_like(similarities, dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        similarities = similarities.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        similarities = similarities + attn_mask
    probabilities = similarities.softmax(-1)
    if dropout_p:
        probabilities = nn.functional.dropout(probabilities, dropout_p)
    return probabilities @ value
