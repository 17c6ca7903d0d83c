"""The ``distill`` config group: which teacher, and how much of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from micronet_cli import checkpoint
from micronet_cli.errors import UserError
from micronet_cli.functional.distillation import decoupled_loss, soft_target_loss
from micronet_cli.models.model import InputSpec, Model
from micronet_cli.models.weights_file import holds_network
from micronet_cli.network import Network
from micronet_cli.training.evaluate import Amp
from micronet_cli.training.hints import Hint, HintLoss
from micronet_cli.training.objectives import Distillation


@dataclass(frozen=True)
class Teacher:
    """A trained network.

    Attributes:
        model: any timm name; null: what the checkpoint in ``weights`` says.
        weights: weights file or trainer's checkpoint; or (then without ``model``) a run directory or checkpoint.
        pretrained: take the weights from timm's hub.
        ema: take the averaged weights of a trainer's checkpoint.
        amp: reduced precision of the teacher's pass by torch.amp; ``none``: the student's own.
        cache_mb: memory for its logits of images that come again unchanged (``data.augment=none``); 0: none.
    """

    model: str | None = None
    weights: str | None = None
    pretrained: bool = False
    ema: bool = False
    amp: Amp = "none"
    cache_mb: int = 0

    def __post_init__(self) -> None:
        if self.cache_mb < 0:
            raise ValueError(f"cache_mb={self.cache_mb}: must be at least 0")
        if self.model is None and self.weights is None:
            raise ValueError("model=None: a teacher is needed; give model and weights, or a run directory as weights")
        if self.model is not None:
            try:
                self._architecture(self.model)
            except UserError as error:
                raise ValueError(str(error)) from None  # the config path of the teacher goes before it

    def _architecture(self, name: str) -> Model:
        return Model(name, self.weights, self.pretrained, ema=self.ema)

    @property
    def trained(self) -> bool:
        """Whether it has weights to teach from."""
        return self.pretrained or self.weights is not None

    def build(self, num_classes: int) -> tuple[torch.nn.Module, InputSpec]:
        """The teacher and the input it needs.

        Args:
            num_classes: of the student; the teacher must have as many.

        Raises:
            UserError: its file is missing, damaged, of another model or of another number of classes.
        """
        describes_itself = self.weights is not None and holds_network(Path(self.weights).expanduser())
        if self.model is None or describes_itself:
            return self._of_run(str(self.weights), num_classes)
        model = self._architecture(self.model).build(num_classes, "distill.teacher", asker="student")
        return model, InputSpec.of(model)

    def _of_run(self, path: str, num_classes: int) -> tuple[torch.nn.Module, InputSpec]:
        """The teacher of a run directory, checkpoint or packed file."""
        teacher = checkpoint.load(path, "distill.teacher.weights")
        name = teacher.config["name"]
        if self.model not in (None, name):
            raise UserError(f"distill.teacher.model={self.model}: {path!r} holds {name}; give one of them")
        if self.ema:
            raise UserError(f"distill.teacher.ema=true: {path!r} has one set of weights, that of the run; leave it out")
        if len(teacher.classes) != num_classes:
            raise UserError(
                f"distill.teacher.weights={path!r}: it has {len(teacher.classes)} classes, the student {num_classes}"
            )
        return teacher.model, teacher.spec


@dataclass(frozen=True)
class SoftTargets:
    """Distillation from a teacher's softened logits (Hinton et al., arXiv 1503.02531).

    Attributes:
        alpha: weight of cross-entropy, in [0, 1]; the rest is the teacher's.
        temperature: T > 0.
        hints: name -> pair of layers whose features should agree (FitNets, arXiv 1412.6550).
        hint_weight: weight of their loss.
    """

    teacher: Teacher
    alpha: float = 0.3
    temperature: float = 2.0
    hints: Mapping[str, Hint] = field(default_factory=dict)
    hint_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha}: must be a weight in [0, 1]")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: must be more than 0")
        if self.hints and self.teacher.cache_mb:
            raise ValueError(f"teacher.cache_mb={self.teacher.cache_mb}: hints need the teacher's features; use 0")

    def logit_loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Loss of the student's logits ``[N, C]`` against the teacher's, a scalar."""
        return soft_target_loss(student, teacher, self.temperature)

    def objective(self, network: Network, device: torch.device, label_smoothing: float) -> Distillation:
        """The objective for a student on ``device``.

        Raises:
            UserError: the student's images do not have the teacher's channels.
        """
        teacher, spec = self.teacher.build(len(network.classes))
        channels, *sides = network.spec.size
        teacher_channels = spec.size[0]
        # Grey images become as many equal channels where they are normalised for the teacher.
        if channels not in (1, teacher_channels):
            raise UserError(
                f"distill.teacher: it takes images of {teacher_channels} channels and the student {channels}; "
                "take a teacher of as many"
            )
        teacher = teacher.to(device, memory_format=torch.channels_last)
        hints = None
        if self.hints:
            images = torch.zeros(2, channels, *sides, device=device)
            teacher_images = torch.zeros(2, teacher_channels, *sides, device=device)
            hints = HintLoss(network.model, teacher, self.hints, (images, teacher_images))
        return Distillation(
            teacher, spec, network.spec, self.logit_loss, self.alpha, label_smoothing, hints, self.hint_weight,
            self.teacher.amp, self.teacher.cache_mb * 2**20,
        )  # fmt: skip


@dataclass(frozen=True)
class Decoupled(SoftTargets):
    """Decoupled distillation (Zhao et al., arXiv 2203.08679): the label's part and the other classes' part by weight.

    Attributes:
        target: weight of the divergence between {label, all else}.
        non_target: weight of the divergence among the other classes.
    """

    alpha: float = 0.5
    temperature: float = 4.0
    target: float = 1.0
    non_target: float = 8.0

    def logit_loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """Loss of the student's logits ``[N, C]`` against the teacher's; a mixed label is its likeliest class."""
        hard = labels
        if labels.dim() == 2:
            hard = labels.argmax(1)
        return decoupled_loss(student, teacher, hard, self.temperature, self.target, self.non_target)
