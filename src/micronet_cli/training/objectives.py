"""Objectives: ``(model, images, labels) -> (loss, logits)``."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from micronet_cli.functional.distillation import soft_target_loss
from micronet_cli.models.model import InputSpec


class Objective(Protocol):
    """What the training loop minimises."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """``images [N, C, H, W], labels [N] -> (loss [], logits [N, classes])``."""
        ...


@dataclass
class CrossEntropy:
    """Cross-entropy with label smoothing in [0, 1) (Szegedy et al., arXiv 1512.00567, section 7)."""

    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and logits."""
        logits = model(images)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits


@dataclass
class Distillation:
    """alpha * CE + (1 - alpha) * T^2 * KL(teacher || student) (Hinton et al., arXiv 1503.02531).

    Attributes:
        teacher: a network in evaluation mode; no gradient reaches it.
        teacher_spec, student_spec: the inputs they want; the student's batch is re-normalised where they differ.
        alpha: weight of cross-entropy, in [0, 1].
        temperature: T > 0.
        label_smoothing: of the cross-entropy, in [0, 1).
    """

    teacher: nn.Module
    teacher_spec: InputSpec
    student_spec: InputSpec
    alpha: float
    temperature: float
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        self.teacher.eval().requires_grad_(False)
        parameter = next(self.teacher.parameters())
        ours, theirs = (
            [parameter.new_tensor(v).view(1, -1, 1, 1) for v in (spec.mean, spec.std)]
            for spec in (self.student_spec, self.teacher_spec)
        )
        self._scale = ours[1] / theirs[1]
        self._shift = (ours[0] - theirs[0]) / theirs[1]
        same = self.student_spec.mean == self.teacher_spec.mean and self.student_spec.std == self.teacher_spec.std
        self._renormalise = not same

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and the student's logits."""
        with torch.no_grad():
            wanted = images * self._scale + self._shift if self._renormalise else images
            teacher_logits = self.teacher(wanted)
        logits = model(images)
        hard = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        soft = soft_target_loss(logits.float(), teacher_logits.float(), self.temperature)
        return self.alpha * hard + (1 - self.alpha) * soft, logits
