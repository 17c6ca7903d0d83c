"""One optimiser step: what changes a network, batch by batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from micronet_cli import distributed
from micronet_cli.compression.compressor import Compressor
from micronet_cli.errors import UserError
from micronet_cli.layers.finite import NotFiniteValues, name_of
from micronet_cli.training.averaging import copy_zeros
from micronet_cli.training.batch_norm import freeze_batch_norm
from micronet_cli.training.diagnose import explain_loss, explain_values, source_in_training
from micronet_cli.training.evaluate import autocast
from micronet_cli.training.meter import Meter
from micronet_cli.training.objectives import Objective
from micronet_cli.training.optim import Optim
from micronet_cli.training.settings import RunLength, TrainerSettings
from micronet_cli.training.state import Stateful, restore_state


class Learner:
    """A network, and what changes it.

    Args:
        settings: of the training.
        optim: optimiser and schedule of the learning rate.
        length: of the run.
        model: trained in place, where it is.
        objective: what is minimised.
        compressors: attached already.
        last: the last checkpoint, which a loss that is not finite points to.

    Attributes:
        step: optimiser steps done.
        accumulated: batches done of the next one.
        defers: whether losses are left to the meter, so that no step waits for the device to know its loss.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        optim: Optim,
        length: RunLength,
        model: nn.Module,
        objective: Objective,
        compressors: Sequence[Compressor],
        last: Path,
    ) -> None:
        self.settings = settings
        self.length = length
        self.model = model
        self.objective = objective
        self.compressors = compressors
        self.last = last
        self.device = next(model.parameters()).device
        self._check_precision()
        self.optimizer = optim.optimizer(model)
        self.objective_parameters = parameters_of(objective)
        if self.objective_parameters:
            self.optimizer.add_param_group({"params": self.objective_parameters})
        self.scheduler = optim.scheduler(self.optimizer, length.total, length.steps_per_epoch)
        uses_fp16 = settings.amp == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=uses_fp16)
        self.ema = None
        if settings.ema_decay:
            self.ema = ModelEmaV3(model, settings.ema_decay)
        computing = model
        if settings.compile:
            computing = torch.compile(model)
        self.forward = distributed.data_parallel(computing)
        self.step = 0
        self.accumulated = 0
        self.defers = False

    def _check_precision(self) -> None:
        if self.settings.amp != "fp16":
            return
        if any(compressor.reads_gradients for compressor in self.compressors):
            raise UserError("trainer.amp=fp16: its loss scale would enter what prune ranks by; use bf16 or none")

    @property
    def average(self) -> nn.Module | None:
        """The moving average of the network, where one is kept."""
        if self.ema is None:
            return None
        return self.ema.module

    @property
    def reported(self) -> nn.Module:
        """The network that is evaluated and saved: the averaged one where there is one."""
        if self.ema is None:
            return self.model
        return self.ema.module

    @property
    def stateful(self) -> Stateful:
        """What is saved to go on from."""
        return Stateful(
            model=self.model,
            average=self.average,
            objective_parameters=self.objective_parameters,
            optimizer=self.optimizer,
            scaler=self.scaler,
        )

    def train_batch(self, images: Tensor, labels: Tensor, meter: Meter) -> None:
        """Forward and backward of a batch, and the optimiser step where it is due.

        Raises:
            UserError: the loss, or what a compressor ranks by, is not finite.
            LossesNotFinite: a compressor had to give up, and an earlier loss was not finite.
        """
        if not self.accumulated:
            self._prepare_step(meter)
        with autocast(self.settings.amp, self.device):
            loss, logits = self.objective(self.forward, images, labels)
        if not self.defers and not loss.isfinite():
            raise UserError(self._explain(loss.item(), images))
        share = loss / self.settings.accumulate_steps
        self.scaler.scale(share).backward()
        meter.add(loss, logits, labels)
        self.accumulated += 1
        if self.accumulated == self.settings.accumulate_steps:
            self.accumulated = 0
            self._finish_step()

    def _explain(self, loss: float, images: Tensor) -> str:
        """Where a loss that is not finite comes from; the network is spent afterwards."""
        with autocast(self.settings.amp, self.device):
            source = source_in_training(self.model, images)
        return explain_loss(loss, self.step, source, self.last)

    def _prepare_step(self, meter: Meter) -> None:
        """Do what is due before an optimiser step: compressors, learning rate, frozen BatchNorm."""
        try:
            self._update_compressors(self.step)
        except UserError:
            # Compressors give up in all processes at once. An unread loss that is not finite came before, and is told.
            if self.defers:
                meter.take()
            raise
        self.scheduler.step_update(self.step)
        freeze_at = self.settings.freeze_bn_at
        if freeze_at is None:
            return
        if self.step >= freeze_at * self.length.total:
            freeze_batch_norm(self.model)

    def _finish_step(self) -> None:
        """The optimiser step, with the gradients of all its batches."""
        # The model's own gradients are averaged in its backward pass.
        distributed.average_gradients(self.objective_parameters)
        largest_norm = self.settings.clip_grad_norm
        if largest_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), largest_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model, self.step)

    def go_back(self, state: dict[str, Any]) -> None:
        """Be at an earlier state between two steps, where compressors and BatchNorm go on as a resumed run's do."""
        place = restore_state(self.stateful, state)
        self.step = place.step
        self.accumulated = 0
        self.optimizer.zero_grad(set_to_none=True)
        self.model.train()

    def settle(self) -> bool:
        """Bring all networks to where the last step left them; whether all compressors are at their final target."""
        # Within a run that is the step just done, which repeats its own update. At the end it is one further, so that
        # every target is reached even where a schedule ends with the run.
        step = self.step - 1
        if self.step == self.length.total:
            step = self.step
        settled = self._update_compressors(step)
        if self.average is not None:
            copy_zeros(self.model, self.average)
        distributed.average_batch_norm(self.model)
        if self.average is not None:
            distributed.average_batch_norm(self.average)
        return settled

    def _update_compressors(self, step: int) -> bool:
        """Bring all compressors to ``step``; whether they are at their final target.

        Raises:
            UserError: what one of them ranks by is not finite.
        """
        settled = True
        for compressor in self.compressors:
            try:
                is_settled = compressor.update(step, self.length.total)
            except NotFiniteValues as error:
                layer = name_of(self.model, error.layer)
                raise UserError(explain_values(error.what, layer, self.step, self.last)) from None
            settled = settled and is_settled
        return settled


def parameters_of(objective: Objective) -> list[nn.Parameter]:
    """What an objective itself trains."""
    if not isinstance(objective, nn.Module):
        return []
    return list(objective.parameters())
