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
    groups, inputs, _ = hessians.shape
    rows = len(weight)
    # Taken by N:M as the sweep arrives, the weights of a group are better chosen than by an order without groups.
    if isinstance(granularity, NM) or rows * inputs**3 > ROW_BY_ROW:
        mask = _by_columns(weight, mask, hessians, sparsity, granularity)
    else:
        importance = obs_importance(_by_group(weight, groups), hessians, _by_group(mask, groups))
        importance = importance.view(weight.shape)
        mask = shrink_mask(importance, mask, sparsity, granularity)
    updated = obs_update(_by_group(weight, groups), hessians, _by_group(mask, groups))
    return SparseWeight(updated.view(weight.shape), mask)


def _by_columns(weight: Tensor, mask: Tensor, hessians: Tensor, sparsity: float, granularity: Granularity) -> Tensor:
    """The mask by a sweep over the columns of each group."""
    groups = len(hessians)
    plan = _planned(weight * mask, mask, hessians, sparsity, granularity)
    order = _channels_together(weight)
    weights = _by_group(weight, groups)[:, :, order]
    masks = _by_group(mask, groups)[:, :, order]
    plans = _by_group(plan, groups)[:, :, order]
    swept = torch.empty_like(masks)
    for group, hessian in enumerate(hessians):
        ordered = hessian[order][:, order]
        kept = swept_mask(weights[group], ordered, masks[group], plans[group], granularity)
        swept[group].index_copy_(1, order, kept)
    return swept.reshape(weight.shape)


def _planned(weight: Tensor, mask: Tensor, hessians: Tensor, sparsity: float, granularity: Granularity) -> Tensor:
    """The mask by what each weight's removal costs alone; ``weight`` is masked."""
    groups = len(hessians)
    inverses = torch.linalg.inv(hessians)
    freedoms = inverses.diagonal(dim1=1, dim2=2)
    alone = _by_group(weight, groups).square() / freedoms[:, None]
    return shrink_mask(alone.view(weight.shape), mask, sparsity, granularity)


def _channels_together(weight: Tensor) -> Tensor:
    """Numbers of a row's weights with the input channels of one kernel position side by side: N:M's neighbours."""
    of_row = weight[0]
    numbers = torch.arange(of_row.numel(), device=weight.device)
    by_channel = numbers.view(of_row.shape)
    return by_channel.movedim(0, -1).flatten()


def _by_group(weight: Tensor, groups: int) -> Tensor:
    """``[C_out, ...] -> [groups, C_out / groups, d]``."""
    rows = weight.flatten(1)
    return rows.unflatten(0, (groups, -1))
