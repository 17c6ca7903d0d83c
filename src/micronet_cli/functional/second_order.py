"""Optimal Brain Compression: which weights of a layer go, and how the others make up for them.

Frantar and Alistarh, arXiv 2208.11580. A layer's weight is ``[rows, d]``, each row a sum of d products with the inputs
X ``[n, d]``; the error ``|X w - X w'|^2`` has the Hessian ``H = 2 X^T X`` for every row.
"""

import torch
from torch import Tensor

# Elements of the inverse Hessians that are worked on at once.
CHUNK_ELEMENTS = 2**24


def damped(hessian: Tensor, dampening: float) -> Tensor:
    """H + dampening * mean(diag H) * I in float64, positive definite; the identity where H is all zero.

    >>> damped(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), 0.5).tolist(), damped(torch.zeros(1, 1), 0.1).tolist()
    ([[2.5, 0.0], [0.0, 0.5]], [[1.0]])
    """
    hessian = hessian.double()
    diagonal = hessian.diagonal()
    mean = diagonal.mean()
    added: Tensor | float = 1.0
    if mean > 0:
        added = mean * dampening
    return hessian + _identity_like(hessian) * added


def _identity_like(matrix: Tensor) -> Tensor:
    size = len(matrix)
    return torch.eye(size, dtype=matrix.dtype, device=matrix.device)


def obs_importance(
    weight: Tensor,
    hessian: Tensor,
    mask: Tensor,
) -> Tensor:
    """The error that an element's removal adds when each row is emptied greedily (section 4, algorithm 1).

    Each step removes p = argmin w_p^2 / [H^-1]_pp, updates w -= H^-1[:, p] w_p / [H^-1]_pp and takes p out of H^-1 by
    H^-1 -= H^-1[:, p] H^-1[p, :] / [H^-1]_pp. The running maximum along a row makes "the k smallest of all rows" the
    set that a greedy choice among all rows finds.

    Args:
        weight: ``[rows, d]``.
        hessian: ``[d, d]``, positive definite.
        mask: bool ``[rows, d]``, True = kept; what it dropped is out from the beginning.

    Returns:
        float32 ``[rows, d]``, larger = keep.

    >>> obs_importance(torch.tensor([[1.0, 3.0]]), torch.eye(2), torch.ones(1, 2, dtype=torch.bool)).tolist()
    [[1.0, 9.0]]
    """
    exact = hessian.double()
    inverse = torch.linalg.inv(exact)
    rows_that_fit = CHUNK_ELEMENTS // inverse.numel()
    # What was dropped before costs nothing, and so goes first.
    masked = (weight * mask).float()
    parts = masked.split(max(1, rows_that_fit))
    importances = [_emptied(part, inverse) for part in parts]
    return torch.cat(importances)


def obs_update(
    weight: Tensor,
    hessian: Tensor,
    mask: Tensor,
) -> Tensor:
    """The kept weights that come nearest to the output of ``weight``: H_KK w'_K = (H w)_K for each row's kept set K.

    The closed form of all of a row's updates together (equation 6: w' = w - H^-1[:, P] [H^-1]_PP^-1 w_P).

    Args:
        weight: ``[rows, d]``.
        hessian: ``[d, d]``, positive definite.
        mask: bool ``[rows, d]``, True = kept.

    >>> hessian = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> obs_update(torch.tensor([[1.0, 2.0]]), hessian, torch.tensor([[False, True]])).tolist()
    [[0.0, 2.5]]
    """
    hessian = hessian.double()
    exact = weight.double()
    products = exact @ hessian
    identity = _identity_like(hessian)
    solutions = []
    for kept, product in zip(mask, products, strict=True):
        both = kept[:, None] & kept
        # Rows and columns of what was dropped become the identity's, which leaves the kept ones' system.
        elsewhere = identity * ~both
        system = torch.where(both, hessian, elsewhere)
        right = product * kept
        solutions.append(torch.linalg.solve(system, right))
    updated = torch.stack(solutions) * mask
    return updated.to(weight.dtype)


def _emptied(weight: Tensor, inverse: Tensor) -> Tensor:
    """Importance of the elements of some rows: ``[rows, d]``."""
    rows, size = weight.shape
    single = inverse.float()
    inverses = single.repeat(rows, 1, 1)
    every = torch.arange(rows, device=weight.device)
    left = torch.ones_like(weight, dtype=torch.bool)
    importance = torch.zeros_like(weight)
    highest = torch.zeros(rows, device=weight.device)
    tiny = torch.finfo(torch.float32).tiny
    for _ in range(size):
        diagonals = inverses.diagonal(dim1=1, dim2=2)
        diagonals = diagonals.clamp(min=tiny)
        cost = weight.square() / diagonals
        cost = cost.masked_fill(~left, torch.inf)
        index = cost.argmin(1)
        lowest_cost = cost[every, index]
        highest = torch.maximum(highest, lowest_cost)
        importance[every, index] = highest
        left[every, index] = False
        # One step of Gaussian elimination: the others make up for what went.
        column = inverses[every, :, index]
        pivot = diagonals[every, index]
        removed = weight[every, index]
        factor = removed / pivot
        change = factor[:, None] * column
        moved = weight - change
        weight = moved * left
        root = pivot.sqrt()
        scaled = column / root[:, None]
        as_column = scaled[:, :, None]
        as_row = scaled[:, None, :]
        inverses.baddbmm_(as_column, as_row, alpha=-1)
    return importance
