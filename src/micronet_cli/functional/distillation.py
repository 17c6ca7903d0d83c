"""Distillation losses. Students' logits carry the gradient, teachers' never do."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened logits, mean over the batch (Hinton et al., arXiv 1503.02531).

    Args:
        student: logits ``[N, C]``.
        teacher: logits ``[N, C]``.
        temperature: T > 0; T^2 keeps the gradient's size independent of it.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")


def decoupled_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, target: float, non_target: float
) -> Tensor:
    """T^2 times target * TCKD + non_target * NCKD (Zhao et al., arXiv 2203.08679, equation 7).

    TCKD is the divergence of the binary split {label, all else}, NCKD that of the other classes among themselves.
    Hinton's loss is target = 1 and non_target = 1 - the teacher's probability of the label.

    Args:
        student: logits ``[N, C]``.
        teacher: logits ``[N, C]``.
        labels: int64 ``[N]``.
        temperature: T > 0.
        target: weight of TCKD.
        non_target: weight of NCKD.
    """
    is_label = F.one_hot(labels, student.shape[1]).bool()
    log_p, log_q = (F.log_softmax(x / temperature, dim=1) for x in (student, teacher.detach()))
    binary_p, binary_q = (
        torch.stack([x[is_label], x.masked_fill(is_label, -torch.inf).logsumexp(1)], dim=1) for x in (log_p, log_q)
    )
    # The label's own entry vanishes from both: exp of -1000 is exactly 0.
    rest_p, rest_q = (F.log_softmax(x.masked_fill(is_label, -1000.0), dim=1) for x in (log_p, log_q))
    tckd = F.kl_div(binary_p, binary_q, log_target=True, reduction="batchmean")
    nckd = F.kl_div(rest_p, rest_q, log_target=True, reduction="batchmean")
    return temperature**2 * (target * tckd + non_target * nckd)


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of two feature maps (Romero et al., FitNets, arXiv 1412.6550, equation 3).

    Args:
        student: ``[N, C, ...]``; averaged down to the teacher's height and width where they differ.
        teacher: ``[N, C, ...]``.
    """
    if student.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
        student = F.adaptive_avg_pool2d(student, teacher.shape[2:])
    return 0.5 * F.mse_loss(student, teacher.detach())
