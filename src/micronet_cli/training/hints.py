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
        modules = dict(model.named_modules())
        self.caught: dict[str, Tensor] = {}
        for where, name in names.items():
            if name not in modules:
                near = difflib.get_close_matches(name, modules, n=3, cutoff=0.4)
                raise UserError(f"{where}={name!r}: no such layer; there are {', '.join(near or list(modules)[1:4])}")
            modules[name].register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.caught[name] = output

        return hook


class HintLoss(nn.Module):
    """Mean hint loss over pairs of layers; where channels differ a trained 1x1 convolution maps the student's.

    Args:
        student, teacher: networks on one device.
        hints: name -> pair of layers.
        images: any batch that both take, to see the shapes.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, hints: Mapping[str, Hint], images: tuple[Tensor, Tensor]
    ) -> None:
        super().__init__()
        self.hints = dict(hints)
        pairs = [(f"distill.hints.{name}", hint) for name, hint in self.hints.items()]
        self.of_student = Catcher(student, {f"{where}.student": hint.student for where, hint in pairs})
        self.of_teacher = Catcher(teacher, {f"{where}.teacher": hint.teacher for where, hint in pairs})
        was_training = student.training
        with torch.no_grad():
            student.eval()(images[0])
            teacher(images[1])
        student.train(was_training)
        self.regressors = nn.ModuleDict()
        for name, hint in self.hints.items():
            ours, theirs = self.of_student.caught[hint.student], self.of_teacher.caught[hint.teacher]
            if ours.dim() != theirs.dim():
                raise UserError(
                    f"distill.hints.{name}: outputs of as many dimensions are wanted; {hint.student} has {ours.dim()}, "
                    f"{hint.teacher} {theirs.dim()}"
                )
            if ours.shape[1] != theirs.shape[1]:
                kind = nn.Conv2d if ours.dim() == 4 else nn.Linear
                size = {"kernel_size": 1} if ours.dim() == 4 else {}
                self.regressors[name] = kind(ours.shape[1], theirs.shape[1], **size).to(ours.device)

    def forward(self) -> Tensor:
        """The loss of the newest pass through both networks."""
        losses = []
        for name, hint in self.hints.items():
            ours = self.of_student.caught[hint.student]
            ours = self.regressors[name](ours) if name in self.regressors else ours
            losses.append(hint_loss(ours, self.of_teacher.caught[hint.teacher]))
        return torch.stack(losses).mean()
