"""Distillation losses."""

import torch.nn.functional as F
from torch import Tensor


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened logits, mean over the batch (Hinton et al., arXiv 1503.02531).

    Args:
        student: logits ``[N, C]``; the gradient flows here.
        teacher: logits ``[N, C]``.
        temperature: T > 0; T^2 keeps the gradient's size independent of it.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
