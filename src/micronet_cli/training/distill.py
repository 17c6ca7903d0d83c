"""The ``distill`` config group: which teacher, and how much of it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from micronet_cli import checkpoint
from micronet_cli.checkpoint import Network
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.training.objectives import Distillation


@dataclass(frozen=True)
class Teacher:
    """A trained network.

    Attributes:
        model: any timm name; null: what the checkpoint in ``weights`` says.
        weights: weights file, or (without ``model``) a run directory or checkpoint.
        pretrained: take the weights from timm's hub.
    """

    model: str | None = None
    weights: str | None = None
    pretrained: bool = False

    def __post_init__(self) -> None:
        if self.model is None and self.weights is None:
            raise ValueError("model=None: a teacher is wanted; give model and weights, or a run directory as weights")
        if self.model is not None:
            Model(self.model)

    @property
    def trained(self) -> bool:
        """Whether it has weights to teach from."""
        return self.pretrained or self.weights is not None

    def build(self, num_classes: int) -> tuple[torch.nn.Module, InputSpec]:
        """The teacher and the input it wants."""
        if self.model is None or (self.weights and Path(self.weights).expanduser().is_dir()):
            teacher = checkpoint.load(str(self.weights), "distill.teacher.weights")
            if len(teacher.classes) != num_classes:
                raise UserError(
                    f"distill.teacher.weights={self.weights!r}: it has {len(teacher.classes)} classes, "
                    f"the student {num_classes}"
                )
            return teacher.model, teacher.spec
        model = Model(self.model, self.weights, self.pretrained).build(num_classes)
        return model, InputSpec.of(model)


@dataclass(frozen=True)
class SoftTargets:
    """Distillation from a teacher's softened logits (Hinton et al., arXiv 1503.02531).

    Attributes:
        alpha: weight of cross-entropy, in [0, 1]; the rest is the teacher's.
        temperature: T > 0.
    """

    teacher: Teacher
    alpha: float = 0.3
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: a weight in [0, 1] is wanted")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: more than 0 is wanted")

    def objective(self, network: Network, device: torch.device, label_smoothing: float) -> Distillation:
        """The objective for a student on ``device``."""
        teacher, spec = self.teacher.build(len(network.classes))
        teacher = teacher.to(device, memory_format=torch.channels_last)
        return Distillation(teacher, spec, network.spec, self.alpha, self.temperature, label_smoothing)
