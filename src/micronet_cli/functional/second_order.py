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
    identity = _identity_like(hessian)
    return hessian + identity * added[..., None, None]


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
    rows_a_group, size = weight.shape[-2:]
    exact = hessian.double()
    inverses = torch.linalg.inv(exact).view(-1, size, size)
    # What was dropped before costs nothing, and so goes first.
    masked = (weight * mask).double().reshape(-1, size)
    importances = []
    for rows in _parts(masked, size):
        groups = rows // rows_a_group
        importance = _emptied(masked[rows], inverses[groups])
        importances.append(importance)
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
    rows_a_group, size = weight.shape[-2:]
    exact = hessian.double()
    products = weight.double() @ exact
    products = products.view(-1, size)
    hessians = exact.reshape(-1, size, size)
    kept = mask.reshape(-1, size)
    numbers = _kept_first(kept)
    most = numbers.shape[1]
    updated = torch.zeros_like(products)
    for rows in _parts(kept, most):
        groups = rows // rows_a_group
        own = numbers[rows]
        is_kept = kept[rows].gather(1, own)
        systems = _taken_out(hessians, groups, own, is_kept)
        right = products[rows].gather(1, own) * is_kept
        solutions = _solved(systems, right)
        updated[rows] = updated[rows].scatter(1, own, solutions)
    updated = updated * kept
    return updated.to(weight.dtype).view(weight.shape)


def _kept_first(kept: Tensor) -> Tensor:
    """The numbers of each row's kept weights, behind them of others where it has fewer than the most, ``[rows, k]``.

    Args:
        kept: bool ``[rows, d]``; k is the largest number of a row's kept weights.
    """
    counts = kept.sum(1)
    most = int(counts.max())
    order = kept.byte().argsort(dim=1, descending=True, stable=True)
    return order[:, :most]


def _solved(systems: Tensor, right: Tensor) -> Tensor:
    """The solutions of positive definite systems: ``[rows, k, k], [rows, k] -> [rows, k]``."""
    factors = torch.linalg.cholesky(systems)
    solutions = torch.cholesky_solve(right[:, :, None], factors)
    return solutions[:, :, 0]


def _taken_out(hessians: Tensor, groups: Tensor, numbers: Tensor, is_kept: Tensor) -> Tensor:
    """Of each row's Hessian the chosen rows and columns, ``[rows, k, k]``; the identity's where not kept.

    Args:
        hessians: ``[groups, d, d]``.
        groups: of each row, ``[rows]``.
        numbers: chosen for each row, ``[rows, k]``.
        is_kept: of the chosen ones, bool ``[rows, k]``.
    """
    of_groups = groups[:, None, None]
    first = numbers[:, :, None]
    second = numbers[:, None, :]
    chosen = hessians[of_groups, first, second]
    both = is_kept[:, :, None] & is_kept[:, None, :]
    identity = _identity_like(chosen)
    return torch.where(both, chosen, identity)


def _parts(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Numbers of ``rows``, as many at a time as matrices of ``size`` fit."""
    of_matrix = max(1, size**2)
    at_once = max(1, CHUNK_ELEMENTS // of_matrix)
    numbers = torch.arange(len(rows), device=rows.device)
    return numbers.split(at_once)


def _emptied(weight: Tensor, inverses: Tensor) -> Tensor:
    """Importance of the elements of some rows.

    Args:
        weight: ``[rows, d]``.
        inverses: of each row's Hessian, ``[rows, d, d]``; changed in place.
    """
    rows, size = weight.shape
    at_once = math.ceil(size / STEPS)
    left = torch.ones_like(weight, dtype=torch.bool)
    importance = torch.zeros_like(weight)
    highest = weight.new_zeros((rows, 1))
    for done in range(0, size, at_once):
        count = min(at_once, size - done)
        lowest, gone = _cheapest(weight, inverses, left, count)
        lowest = torch.maximum(lowest, highest)
        highest = lowest[:, -1:]
        importance.scatter_(1, gone, lowest)
        left.scatter_(1, gone, False)
        change = _take_out(inverses, gone, weight)
        weight = (weight - change) * left
    return importance.float()


def _cheapest(weight: Tensor, inverses: Tensor, left: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The least errors that a removal of one of the elements left adds, and the elements: ``[rows, count]`` each."""
    tiny = torch.finfo(torch.float32).tiny
    diagonals = inverses.diagonal(dim1=1, dim2=2).clamp(min=tiny)
    cost = weight.square() / diagonals
    cost = cost.masked_fill(~left, torch.inf)
    ordered, order = cost.sort(dim=1, stable=True)
    return ordered[:, :count], order[:, :count]


def _take_out(inverses: Tensor, gone: Tensor, weight: Tensor) -> Tensor:
    """A block step of Gaussian elimination: the others make up for what went.

    Args:
        inverses: changed in place.
        gone: elements that go, ``[rows, count]``.
        weight: ``[rows, d]``.

    Returns:
        What is taken off the weights for it, ``[rows, d]``.
    """
    count = gone.shape[1]
    size = weight.shape[1]
    as_columns = gone[:, :, None].expand(-1, -1, size)
    columns = inverses.gather(1, as_columns)
    as_pivots = gone[:, None, :].expand(-1, count, -1)
    pivots = columns.gather(2, as_pivots)
    factors = torch.linalg.cholesky(pivots)
    scaled = torch.linalg.solve_triangular(factors, columns, upper=False)
    removed = weight.gather(1, gone)[:, :, None]
    errors = torch.linalg.solve_triangular(factors, removed, upper=False)
    as_rows = scaled.transpose(1, 2)
    change = as_rows @ errors
    inverses.baddbmm_(as_rows, scaled, alpha=-1)
    return change[:, :, 0]
