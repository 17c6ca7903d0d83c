"""Optimal Brain Compression: which weights of a layer go, and how the others make up for them.

Frantar and Alistarh, arXiv 2208.11580. A layer's weight is ``[rows, d]``, each row a sum of d products with the inputs
X ``[n, d]``; the error ``|X w - X w'|^2`` has the Hessian ``H = 2 X^T X`` for every row.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Elements of the inverse Hessians that are worked on at once.
CHUNK_ELEMENTS = 2**22
# In which a row is emptied. One by one takes many times as long for long rows, and saves less than 1 % of the error.
STEPS = 64


def damped(hessian: Tensor, dampening: float | Tensor) -> Tensor:
    """H + dampening * mean(diag H) * I in float64, positive definite; the identity where H is all zero.

    Args:
        hessian: ``[..., d, d]``; each has its own mean.
        dampening: above 0; of all, or ``[...]``.

    >>> damped(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), 0.5).tolist(), damped(torch.zeros(1, 1), 0.1).tolist()
    ([[2.5, 0.0], [0.0, 0.5]], [[1.0]])
    """
    hessian = hessian.double()
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(-1)
    added = torch.where(mean > 0, mean * dampening, 1.0)
    return hessian + _identity_like(hessian) * added[..., None, None]


def _identity_like(matrix: Tensor) -> Tensor:
    size = matrix.shape[-1]
    return torch.eye(size, dtype=matrix.dtype, device=matrix.device)


def obs_importance(
    weight: Tensor,
    hessian: Tensor,
    mask: Tensor,
) -> Tensor:
    """The error that an element's removal adds when each row is emptied greedily (section 4, algorithm 1).

    Each step removes p = argmin w_p^2 / [H^-1]_pp, updates w -= H^-1[:, p] w_p / [H^-1]_pp and takes p out of H^-1 by
    H^-1 -= H^-1[:, p] H^-1[p, :] / [H^-1]_pp. The running maximum along a row makes "the k smallest of all rows" the
    set that a greedy choice among all rows finds. Of more than ``STEPS`` elements several go in a step, the cheapest
    together.

    Args:
        weight: ``[..., rows, d]``.
        hessian: ``[..., d, d]``, positive definite, one for so many rows.
        mask: bool ``[..., rows, d]``, True = kept; what it dropped is out from the beginning.

    Returns:
        float32 of the weight's shape, larger = keep.

    >>> obs_importance(torch.tensor([[1.0, 3.0]]), torch.eye(2), torch.ones(1, 2, dtype=torch.bool)).tolist()
    [[1.0, 9.0]]
    """
    size = weight.shape[-1]
    exact = hessian.double()
    inverses = torch.linalg.inv(exact).view(-1, size, size)
    # What was dropped before costs nothing, and so goes first.
    masked = (weight * mask).double().reshape(-1, size)
    importances = []
    for rows in _parts(masked, size):
        of_rows = inverses[rows // weight.shape[-2]]
        importances.append(_emptied(masked[rows], of_rows))
    return torch.cat(importances).view(weight.shape)


def obs_update(
    weight: Tensor,
    hessian: Tensor,
    mask: Tensor,
) -> Tensor:
    """The kept weights that come nearest to the output of ``weight``: H_KK w'_K = (H w)_K for each row's kept set K.

    The closed form of all of a row's updates together (equation 6: w' = w - H^-1[:, P] [H^-1]_PP^-1 w_P).

    Args:
        weight: ``[..., rows, d]``.
        hessian: ``[..., d, d]``, positive definite, one for so many rows.
        mask: bool ``[..., rows, d]``, True = kept.

    >>> hessian = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> obs_update(torch.tensor([[1.0, 2.0]]), hessian, torch.tensor([[False, True]])).tolist()
    [[0.0, 2.5]]
    """
    size = weight.shape[-1]
    exact = hessian.double()
    products = weight.double() @ exact
    products = products.view(-1, size)
    hessians = exact.reshape(-1, size, size)
    kept = mask.reshape(-1, size)
    most = int(kept.sum(1).max())
    # The numbers of each row's kept weights, and behind them of others where it has fewer than the most.
    order = kept.byte().argsort(dim=1, descending=True, stable=True)
    numbers = order[:, :most]
    updated = torch.zeros_like(products)
    for rows in _parts(kept, most):
        own = numbers[rows]
        is_kept = kept[rows].gather(1, own)
        systems = _taken_out(hessians, rows // weight.shape[-2], own, is_kept)
        right = products[rows].gather(1, own) * is_kept
        factors = torch.linalg.cholesky(systems)
        solutions = torch.cholesky_solve(right[:, :, None], factors)
        updated[rows] = updated[rows].scatter(1, own, solutions[:, :, 0])
    updated = updated * kept
    return updated.to(weight.dtype).view(weight.shape)


def _taken_out(hessians: Tensor, groups: Tensor, numbers: Tensor, is_kept: Tensor) -> Tensor:
    """Of each row's Hessian the chosen rows and columns, ``[rows, k, k]``; the identity's where not kept.

    Args:
        hessians: ``[groups, d, d]``.
        groups: of each row, ``[rows]``.
        numbers: chosen for each row, ``[rows, k]``.
        is_kept: of the chosen ones, bool ``[rows, k]``.
    """
    chosen = hessians[groups[:, None, None], numbers[:, :, None], numbers[:, None, :]]
    both = is_kept[:, :, None] & is_kept[:, None, :]
    return torch.where(both, chosen, _identity_like(chosen))


def _parts(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Numbers of ``rows``, as many at a time as matrices of ``size`` fit."""
    at_once = CHUNK_ELEMENTS // max(1, size**2)
    numbers = torch.arange(len(rows), device=rows.device)
    return numbers.split(max(1, at_once))


def _emptied(weight: Tensor, inverses: Tensor) -> Tensor:
    """Importance of the elements of some rows: ``[rows, d], [rows, d, d] -> [rows, d]``."""
    rows, size = weight.shape
    at_once = math.ceil(size / STEPS)
    left = torch.ones_like(weight, dtype=torch.bool)
    importance = torch.zeros_like(weight)
    highest = weight.new_zeros((rows, 1))
    tiny = torch.finfo(torch.float32).tiny
    for done in range(0, size, at_once):
        diagonals = inverses.diagonal(dim1=1, dim2=2).clamp(min=tiny)
        cost = weight.square() / diagonals
        cost = cost.masked_fill(~left, torch.inf)
        ordered, order = cost.sort(dim=1, stable=True)
        count = min(at_once, size - done)
        gone = order[:, :count]
        lowest = torch.maximum(ordered[:, :count], highest)
        highest = lowest[:, -1:]
        importance.scatter_(1, gone, lowest)
        left.scatter_(1, gone, False)
        # A block step of Gaussian elimination: the others make up for what went.
        columns = inverses.gather(1, gone[:, :, None].expand(-1, -1, size))
        pivots = columns.gather(2, gone[:, None, :].expand(-1, count, -1))
        factors = torch.linalg.cholesky(pivots)
        scaled = torch.linalg.solve_triangular(factors, columns, upper=False)
        removed = weight.gather(1, gone)[:, :, None]
        errors = torch.linalg.solve_triangular(factors, removed, upper=False)
        as_rows = scaled.transpose(1, 2)
        change = as_rows @ errors
        weight = (weight - change[:, :, 0]) * left
        inverses.baddbmm_(as_rows, scaled, alpha=-1)
    return importance.float()
