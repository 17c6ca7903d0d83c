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
    target = teacher.detach()
    log_p = _softened(student, temperature)
    log_q = _softened(target, temperature)
    divergence = _batch_divergence(log_p, log_q)
    return temperature**2 * divergence


def decoupled_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    target: float,
    non_target: float,
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
    classes = student.shape[1]
    every_class = torch.arange(classes, device=labels.device)
    is_label = labels[:, None] == every_class
    log_p = _softened(student, temperature)
    log_q = _softened(teacher.detach(), temperature)

    split_p = _label_and_rest(log_p, labels, is_label)
    split_q = _label_and_rest(log_q, labels, is_label)
    tckd = _batch_divergence(split_p, split_q)

    rest_p = _among_the_rest(log_p, is_label)
    rest_q = _among_the_rest(log_q, is_label)
    nckd = _batch_divergence(rest_p, rest_q)
    weighted = target * tckd + non_target * nckd
    return temperature**2 * weighted


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities at this temperature: ``[N, C]``."""
    softer = logits / temperature
    return F.log_softmax(softer, dim=1)


def _label_and_rest(log_p: Tensor, labels: Tensor, is_label: Tensor) -> Tensor:
    """Log-probabilities of the label and of all else: ``[N, C] -> [N, 2]``."""
    # An index of booleans would wait for a GPU.
    label = log_p.gather(1, labels[:, None]).squeeze(1)
    others = log_p.masked_fill(is_label, -torch.inf)
    rest = others.logsumexp(1)
    return torch.stack([label, rest], dim=1)


def _among_the_rest(log_p: Tensor, is_label: Tensor) -> Tensor:
    """Log-probabilities of the classes but the label, given that it is not the label: ``[N, C]``."""
    # The label's own entry vanishes: exp of -1000 is exactly 0.
    others = log_p.masked_fill(is_label, -1000.0)
    return F.log_softmax(others, dim=1)


def _batch_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p), mean over the batch."""
    return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of two feature maps (Romero et al., FitNets, arXiv 1412.6550, equation 3).

    Args:
        student: ``[N, C, ...]``; averaged down to the teacher's height and width where they differ.
        teacher: ``[N, C, ...]``.
    """
    size = teacher.shape[2:]
    is_map = student.dim() == 4
    if is_map and student.shape[2:] != size:
        student = F.adaptive_avg_pool2d(student, size)
    mean_square = F.mse_loss(student, teacher.detach())
    return 0.5 * mean_square
