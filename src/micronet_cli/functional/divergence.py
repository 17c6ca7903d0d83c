"""How far a network's output moved: exactly, and to second order."""

from torch import Tensor
from torch.nn import functional as F


def divergence(logits: Tensor, changed: Tensor) -> Tensor:
    """KL(softmax(logits) || softmax(changed)) of each image: ``2 x [N, C] -> [N]``, in nats, at least 0.

    >>> import torch
    >>> divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 3.0]])).tolist()
    [0.0]
    """
    log_p = _log_probabilities(logits)
    log_q = _log_probabilities(changed)
    by_class = F.kl_div(
        log_q,
        log_p,
        reduction="none",
        log_target=True,
    )
    by_image = by_class.sum(1)
    # Rounding can bring the sum just below 0.
    return by_image.clamp_min(0)


def _log_probabilities(logits: Tensor) -> Tensor:
    """In float32, whatever precision the network ran in."""
    exact = logits.float()
    return F.log_softmax(exact, dim=1)


def fisher_factor(logits: Tensor, signs: Tensor) -> Tensor:
    """B v with B B^T = diag(p) - p p^T, the Hessian of the divergence in the changed logits where they are equal.

    A small change d of the logits costs d^T (diag(p) - p p^T) d / 2, and the mean of (v^T B^T d)^2 over random signs v
    is that product (Hutchinson 1990; the generalised Gauss-Newton matrix of Martens, arXiv 1412.1193, section 8).

    Args:
        logits: ``[N, C]``, p is their softmax.
        signs: v, plus and minus ones ``[N, C]``.

    Returns:
        sqrt(p) v - p (sqrt(p) . v), ``[N, C]``.
    """
    exact = logits.float()
    p = exact.softmax(1)
    root = p.sqrt() * signs
    inner = root.sum(1, keepdim=True)
    return root - p * inner
