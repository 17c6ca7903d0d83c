"""Feature maps of two networks, caught on their way through (FitNets, arXiv 1412.6550)."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.errors import UserError
from micronet_cli.functional.distillation import hint_loss


@dataclass(frozen=True)
class Hint:
    """A pair of layers whose outputs should agree.

    Attributes:
        student, teacher: module names.
    """

    student: str
    teacher: str


class Catcher:
    """Keeps the newest output of some layers of a network, given by their places in the config."""

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        self.caught: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        for where, name in names.items():
            if name not in modules:
                some = ", ".join(like(name, modules))
                raise UserError(f"{where}={name!r}: no such layer; there are {some}")
            modules[name].register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.caught[name] = output

        return hook


def like(name: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """Layers of nearly this name; the first ones where there are none."""
    near = difflib.get_close_matches(name, modules, n=3, cutoff=0.4)
    if near:
        return near
    _network, *layers = modules
    return layers[:3]


class HintLoss(nn.Module):
    """Mean hint loss over pairs of layers; where channels differ a trained 1x1 convolution maps the student's.

    Args:
        student, teacher: networks on one device.
        hints: name -> pair of layers.
        images: a batch for the student and one for the teacher, to see the shapes.

    Raises:
        UserError: no such layer, or outputs of different dimensions; the message has its path in the config.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        hints: Mapping[str, Hint],
        images: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        self.hints = dict(hints)
        student_names = {}
        teacher_names = {}
        for name, hint in hints.items():
            student_names[f"distill.hints.{name}.student"] = hint.student
            teacher_names[f"distill.hints.{name}.teacher"] = hint.teacher
        self.of_student = Catcher(student, student_names)
        self.of_teacher = Catcher(teacher, teacher_names)
        student_images, teacher_images = images
        was_training = student.training
        student.eval()
        with torch.no_grad():
            student(student_images)
            teacher(teacher_images)
        student.train(was_training)
        self.regressors = nn.ModuleDict()
        for name, hint in self.hints.items():
            ours, theirs = self.newest(hint)
            if ours.dim() != theirs.dim():
                raise UserError(
                    f"distill.hints.{name}: the outputs must have as many dimensions; {hint.student} has "
                    f"{ours.dim()}, {hint.teacher} {theirs.dim()}"
                )
            if ours.shape[1] != theirs.shape[1]:
                self.regressors[name] = regressor(ours, theirs).to(ours.device)

    def newest(self, hint: Hint) -> tuple[Tensor, Tensor]:
        """The newest output of both layers of a pair."""
        ours = self.of_student.caught[hint.student]
        theirs = self.of_teacher.caught[hint.teacher]
        return ours, theirs

    def forward(self) -> Tensor:
        """The loss of the newest pass through both networks."""
        losses = []
        for name, hint in self.hints.items():
            ours, theirs = self.newest(hint)
            if name in self.regressors:
                ours = self.regressors[name](ours)
            losses.append(hint_loss(ours, theirs))
        each = torch.stack(losses)
        return each.mean()


def regressor(ours: Tensor, theirs: Tensor) -> nn.Module:
    """A layer that maps channels as in ``ours`` ``[N, C, ...]`` to as many as ``theirs`` has."""
    own_channels = ours.shape[1]
    wanted_channels = theirs.shape[1]
    if ours.dim() == 4:
        return nn.Conv2d(own_channels, wanted_channels, kernel_size=1)
    return nn.Linear(own_channels, wanted_channels)
