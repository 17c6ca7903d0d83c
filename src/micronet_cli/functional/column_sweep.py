"""Which weights of a layer go, column by column: for layers too large to empty row by row.

Frantar and Alistarh, SparseGPT, arXiv 2301.00774: all rows share one inverse Hessian, of which a column that has been
decided on is taken out once. Time grows with d^3 + rows * d^2, where emptying rows takes rows * d^3.
"""

import torch
from torch import Tensor

from micronet_cli.functional.granularity import NM, Granularity
from micronet_cli.functional.masks import shrink_mask, sparsity_of

BLOCK = 32


def swept_mask(weight: Tensor, hessian: Tensor, mask: Tensor, plan: Tensor, granularity: Granularity) -> Tensor:
    """A mask that drops as many weights of each block of columns as ``plan`` does, and better ones (algorithm 1 there).

    Which of a block go is decided when the sweep arrives there, by the weights as they have made up for what went on
    their left: the least w_p^2 / U_pp^2, where U^T U = H^-1.

    Args:
        weight: ``[rows, d]``.
        hessian: ``[d, d]``, positive definite.
        mask: bool ``[rows, d]``, True = kept. What it dropped stays dropped.
        plan: a mask that drops at least as much, as the importances before the sweep make it.
        granularity: single elements, or N of M neighbouring columns.

    >>> hessian = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> everything, plan = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    >>> swept_mask(torch.tensor([[1.0, 2.0]]), hessian, everything, plan, NM(1, 2)).tolist()
    [[False, True]]
    """
    block = granularity.m if isinstance(granularity, NM) else BLOCK
    inverse = torch.linalg.inv(hessian.double())
    left = (weight * mask).double()
    # H^-1 = U^T U: row p of U belongs to the inverse that the columns from p on have by themselves.
    factor = torch.linalg.cholesky(inverse, upper=True)
    freedoms = factor.diagonal().square()
    columns = weight.shape[1]
    swept = []
    for first in range(0, columns, block):
        here = slice(first, first + block)
        sparsity = sparsity_of(plan[:, here])
        cost = left[:, here].square() / freedoms[here]
        kept = shrink_mask(cost, mask[:, here], sparsity, granularity)
        swept.append(kept)
        _make_up(left[:, first:], factor[first:, first:], kept)
    return torch.cat(swept, 1)


def _make_up(left: Tensor, factor: Tensor, kept: Tensor) -> None:
    """Take what is not kept of the first columns out of the weights ``[rows, m]``, and let those on the right make up.

    Args:
        left: changed in place.
        factor: U of these columns, ``[m, m]``.
        kept: of the first columns, bool ``[rows, block]``.
    """
    block = kept.shape[1]
    errors = []
    for column in range(block):
        pivot = factor[column, column]
        removed = left[:, column] * ~kept[:, column]
        error = removed / pivot
        change = error[:, None] * factor[column, column:block]
        left[:, column:block] -= change
        errors.append(error)
    behind = factor[:block, block:]
    left[:, block:] -= torch.stack(errors, 1) @ behind
