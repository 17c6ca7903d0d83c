"""Importance criteria and exact masks. Larger importance means keep."""

import torch
from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """Importance |w| (Han et al., arXiv 1506.02626): same shape as ``weight``."""
    return weight.abs()


def shrink_mask(importance: Tensor, mask: Tensor, sparsity: float) -> Tensor:
    """The mask with exactly ``round(n * sparsity)`` zeros, or ``mask`` itself where it already has as many.

    Args:
        importance: any shape, larger = keep.
        mask: bool of the same shape, True = kept. What it dropped stays dropped.
        sparsity: fraction of zeros in [0, 1].

    Ties go by index: of equal importances the earlier one is dropped.

    >>> shrink_mask(torch.tensor([1.0, 1.0, 2.0, 1.0]), torch.ones(4, dtype=torch.bool), 0.5).tolist()
    [False, False, True, True]
    """
    dropped = round(importance.numel() * sparsity)
    ranked = importance.masked_fill(~mask, -torch.inf).flatten()
    new = mask.flatten().clone()
    new[ranked.argsort(stable=True)[:dropped]] = False
    return new.view_as(mask)
