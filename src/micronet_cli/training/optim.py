"""The ``optim`` config group: timm's optimisers and schedulers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from micronet_cli.errors import UserError, near_misses


@dataclass(frozen=True)
class Optim:
    """Optimiser and learning-rate schedule.

    Attributes:
        name: any of timm's optimisers.
        lr: learning rate, > 0.
        schedule: ``exponential`` multiplies by ``gamma`` after every epoch from ``hold_epochs`` on (ExponentialLR); the
            others are timm's.
        warmup_epochs: linear from ``warmup_lr``.
        args: further arguments of the optimiser.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["cosine", "exponential", "constant", "step", "multistep", "poly", "tanh"] = "cosine"
    min_lr: float = 0.0
    gamma: float = 0.9
    hold_epochs: int = 0
    step_epochs: int = 30
    milestones: list[int] | None = None
    warmup_epochs: int = 0
    warmup_lr: float = 1e-5
    args: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        known = list_optimizers()
        if self.name not in known:
            raise ValueError(f"name={self.name!r}: no such optimiser{near_misses(self.name, known)}")
        if self.lr <= 0:
            raise ValueError(f"lr={self.lr}: must be more than 0")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay}: must be at least 0")

    def optimizer(self, model: nn.Module) -> Optimizer:
        """An optimiser of the model's parameters; biases and norms get no weight decay.

        Raises:
            UserError: it does not take the further arguments.
        """
        own = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        try:
            return create_optimizer_v2(model, self.name, **own, **(self.args or {}))
        except TypeError as error:
            raise UserError(f"optim.args={dict(self.args or {})}: {self.name} does not take them ({error})") from None

    def scheduler(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> Scheduler:
        """A schedule over ``steps``, a function of the step alone (``step_update``), so resuming needs no state."""
        epochs = steps / steps_per_epoch
        exponential = self.schedule == "exponential"
        milestones = self.milestones or []
        if exponential:
            milestones = list(range(max(self.hold_epochs, 1), math.ceil(epochs)))
        # timm decays one update before a milestone; half an update later is the epoch's first.
        shifted: list[Any] = [epoch + 0.5 / steps_per_epoch for epoch in milestones]
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="multistep" if exponential else self.schedule,
            num_epochs=epochs,  # timm takes parts of one
            decay_epochs=self.step_epochs,
            decay_milestones=shifted,
            decay_rate=self.gamma,
            min_lr=self.min_lr,
            warmup_lr=self.warmup_lr,
            warmup_epochs=self.warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=steps_per_epoch,
        )
        return scheduler
