"""The ``trainer`` config group."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from micronet_cli.distributed import local_rank
from micronet_cli.errors import UserError
from micronet_cli.training.evaluate import Amp


@dataclass(frozen=True)
class RunLength:
    """How long a run is, in optimiser steps.

    Attributes:
        total: of the run.
        steps_per_epoch: of a pass over train.
    """

    total: int
    steps_per_epoch: int

    @property
    def epochs(self) -> int:
        """Epochs, the last one perhaps cut short."""
        return math.ceil(self.total / self.steps_per_epoch)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, that the last of ``step`` steps belongs to."""
        return (step - 1) // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, or the run, ends after so many steps."""
        return step % self.steps_per_epoch == 0 or step == self.total


@dataclass(frozen=True)
class TrainerSettings:
    """How to train.

    Attributes:
        epochs: passes over train.
        max_steps: end after so many optimiser steps; all schedules are squeezed into them.
        devices: processes on this machine, one a GPU where there are GPUs; under torchrun its own count holds.
        device: ``auto`` takes a GPU where there is one.
        amp: forward and backward in reduced precision by torch.amp.
        compile: run the network through torch.compile.
        ema_decay: also keep an exponential moving average of the weights, and report that; null: none.
        label_smoothing: of the cross-entropy, in [0, 1).
        clip_grad_norm: largest gradient norm; null: any.
        accumulate_steps: batches an optimiser step.
        log_interval_steps: optimiser steps between lines in the log and in history.jsonl. On a GPU losses are looked
            at, and a request to stop is answered, at the end of such an interval, so that no step waits for the device.
        freeze_bn_at: progress in [0, 1] from which BatchNorm's statistics stay as they are; null: never.
        reestimate_bn_batches: take the best network's BatchNorm statistics anew from so many batches; null: do not.
        profile: write a torch profiler trace of a few steps to profile.json and name the top costs.
        checkpoint_minutes: resume state is written at every epoch's end, and after so many minutes within one.
    """

    epochs: int = 10
    max_steps: int | None = None
    devices: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    amp: Amp = "none"
    compile: bool = False
    ema_decay: float | None = None
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    accumulate_steps: int = 1
    log_interval_steps: int = 20
    checkpoint_minutes: float = 10.0
    freeze_bn_at: float | None = None
    reestimate_bn_batches: int | None = None
    profile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "devices", "accumulate_steps", "log_interval_steps"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: must be at least 1")
        if self.freeze_bn_at is not None and not 0 <= self.freeze_bn_at <= 1:
            raise ValueError(f"freeze_bn_at={self.freeze_bn_at}: must be a progress in [0, 1]")
        for name in ("clip_grad_norm", "reestimate_bn_batches"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: must be more than 0, or null")
        for name in ("label_smoothing", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name}={value}: must be a number in [0, 1)")

    def torch_device(self) -> torch.device:
        """Where to compute.

        Raises:
            UserError: a GPU was asked for and there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("trainer.device=cuda: torch sees no GPU here; use trainer.device=auto")
        if self.device == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", local_rank())

    def length(self, batches: int, batch_size: int) -> RunLength:
        """How long a run is whose epoch has so many ``batches``.

        Raises:
            UserError: an epoch has too few batches for one step.
        """
        steps_per_epoch = batches // self.accumulate_steps
        if not steps_per_epoch:
            raise UserError(
                f"trainer.accumulate_steps={self.accumulate_steps}: train has only {batches} batches of "
                f"data.batch_size={batch_size}"
            )
        total = self.epochs * steps_per_epoch
        if self.max_steps is not None:
            total = min(total, self.max_steps)
        return RunLength(total, steps_per_epoch)
