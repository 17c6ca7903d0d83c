"""The weight of one layer at a sparsity, given what its inputs look like: which weights go, what the others become."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from micronet_cli.errors import UserError
from micronet_cli.functional.column_sweep import swept_mask
from micronet_cli.functional.granularity import NM, Granularity
from micronet_cli.functional.masks import ELEMENT, shrink_mask
from micronet_cli.functional.second_order import obs_importance, obs_update

# Emptying the rows of a layer one by one takes rows * d^3 multiplications; above so many the columns are swept.
ROW_BY_ROW = 4e10


class SparseWeight(NamedTuple):
    """A weight and its mask, bool, True = kept; both ``[C_out, C_in / groups, ...]``."""

    weight: Tensor
    mask: Tensor


def sparse_weight(
    weight: Tensor, mask: Tensor, hessians: Tensor, sparsity: float, granularity: Granularity = ELEMENT
) -> SparseWeight:
    """The mask with exactly ``round(n * sparsity)`` dropped weights, and the kept weights nearest to the old output.

    Args:
        weight: ``[C_out, C_in / groups, ...]``.
        mask: bool of the same shape, True = kept. What it dropped stays dropped.
        hessians: ``[groups, d, d]``, positive definite.
        sparsity: fraction of zeros in [0, 1).
        granularity: single elements, or N:M.

    Raises:
        UserError: a Hessian is positive definite no more once it is rounded.
    """
    with inverse_explained():
        return _found(weight, mask, hessians, sparsity, granularity)


@contextmanager
def inverse_explained() -> Iterator[None]:
    """Says what a Hessian without an inverse needs.

    Raises:
        UserError: there was one within the block.
    """
    try:
        yield
    except torch.linalg.LinAlgError:
        raise UserError(
            "prune.dampening: too small for a layer's inputs, which depend on each other; raise it"
        ) from None


def _found(weight: Tensor, mask: Tensor, hessians: Tensor, sparsity: float, granularity: Granularity) -> SparseWeight:
    """The same, where the Hessians let it."""
    groups = len(hessians)
    rows = len(weight)
    inputs = hessians.shape[-1]
    # Taken by N:M as the sweep arrives, the weights of a group are better chosen than by an order without groups.
    if isinstance(granularity, NM) or rows * inputs**3 > ROW_BY_ROW:
        mask = _by_columns(weight, mask, hessians, sparsity, granularity)
    else:
        importance = obs_importance(_by_group(weight, groups), hessians, _by_group(mask, groups))
        mask = shrink_mask(importance.view(weight.shape), mask, sparsity, granularity)
    updated = obs_update(_by_group(weight, groups), hessians, _by_group(mask, groups))
    return SparseWeight(updated.view(weight.shape), mask)


def _by_columns(weight: Tensor, mask: Tensor, hessians: Tensor, sparsity: float, granularity: Granularity) -> Tensor:
    """The mask by a sweep over the columns of each group."""
    groups = len(hessians)
    inverses = torch.linalg.inv(hessians)
    diagonals = inverses.diagonal(dim1=1, dim2=2)
    alone = _by_group(weight * mask, groups).square() / diagonals[:, None]
    plan = shrink_mask(alone.view(weight.shape), mask, sparsity, granularity)
    # The neighbours of N:M are input channels: those of one kernel position lie together.
    numbers = torch.arange(hessians.shape[-1], device=weight.device)
    order = numbers.view(weight[0].shape).movedim(0, -1).flatten()
    parts = zip(_by_group(weight, groups), hessians, _by_group(mask, groups), _by_group(plan, groups), strict=True)
    swept = []
    for rows, hessian, kept, planned in parts:
        ordered = swept_mask(rows[:, order], hessian[order][:, order], kept[:, order], planned[:, order], granularity)
        swept.append(torch.empty_like(kept).index_copy_(1, order, ordered))
    return torch.stack(swept).view(weight.shape)


def _by_group(weight: Tensor, groups: int) -> Tensor:
    """``[C_out, ...] -> [groups, C_out / groups, d]``."""
    rows = weight.flatten(1)
    return rows.unflatten(0, (groups, -1))
