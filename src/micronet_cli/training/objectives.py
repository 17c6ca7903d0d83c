"""Objectives: ``(model, images, labels) -> (loss, logits)``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from micronet_cli.models.model import InputSpec
from micronet_cli.training.evaluate import Amp, autocast
from micronet_cli.training.logit_cache import LogitCache


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
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return loss, logits


class Distillation(nn.Module):
    """alpha * cross-entropy + (1 - alpha) * logit loss + hint_weight * feature loss.

    Args:
        teacher: a network; it is put into evaluation mode and no gradient reaches it.
        teacher_spec, student_spec: the inputs they need; the student's batch is re-normalised where they differ.
        logit_loss: (student logits, teacher logits, labels) -> loss.
        alpha: weight of cross-entropy, in [0, 1].
        label_smoothing: of the cross-entropy, in [0, 1).
        hints: loss of features; its parameters are trained along.
        hint_weight: its weight.
        amp: precision of the teacher's pass; ``none``: the student's.
        cache_bytes: memory for the teacher's logits of images that come again unchanged.
    """

    def __init__(
        self,
        teacher: nn.Module,
        teacher_spec: InputSpec,
        student_spec: InputSpec,
        logit_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        alpha: float,
        label_smoothing: float = 0.0,
        hints: nn.Module | None = None,
        hint_weight: float = 0.0,
        amp: Amp = "none",
        cache_bytes: int = 0,
    ) -> None:
        super().__init__()
        self.logit_loss = logit_loss
        self.alpha = alpha
        self.label_smoothing = label_smoothing
        self.hints = hints
        self.hint_weight = hint_weight
        teacher.eval()
        teacher.requires_grad_(False)
        # In a tuple, so that it is no part of this module's state.
        self._teacher = (teacher,)
        device = next(teacher.parameters()).device
        mean, std = per_channel(student_spec, device)
        teacher_mean, teacher_std = per_channel(teacher_spec, device)
        self._scale = std / teacher_std
        self._shift = (mean - teacher_mean) / teacher_std
        same_mean = student_spec.mean == teacher_spec.mean
        same_std = student_spec.std == teacher_spec.std
        self._renormalise = not (same_mean and same_std)
        self._amp = amp
        self._cached = None
        if cache_bytes:
            self._cached = LogitCache(self._teach, cache_bytes)

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        """The teacher's logits for a batch as the student gets it."""
        if self._cached is None:
            return self._teach(images)
        return self._cached(images)

    def _teach(self, images: Tensor) -> Tensor:
        if self._renormalise:
            images = images * self._scale + self._shift
        (teacher,) = self._teacher
        if self._amp == "none":
            # Without a precision of its own the teacher runs in the student's, which may be autocast already.
            return teacher(images)
        with autocast(self._amp, images.device):
            return teacher(images)

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and the student's logits."""
        teacher_logits = self.teach(images)
        logits = model(images)
        hard = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        soft = self.logit_loss(logits.float(), teacher_logits.float(), labels)
        soft_weight = 1 - self.alpha
        loss = self.alpha * hard + soft_weight * soft
        if self.hints is not None:
            loss = loss + self.hint_weight * self.hints()
        return loss, logits


def per_channel(spec: InputSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an input, ``[1, C, 1, 1]`` each."""
    mean = torch.tensor(spec.mean, device=device)
    std = torch.tensor(spec.std, device=device)
    along = (1, -1, 1, 1)
    return mean.view(along), std.view(along)
