"""The training loop: the only one. Objectives and compressors plug in."""

import logging
import math
import sys
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from micronet_cli import checkpoint, distributed
from micronet_cli.allocator import keep_freed_memory
from micronet_cli.compression.compressor import Compressor
from micronet_cli.data.protocol import Batches
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run
from micronet_cli.training.averaging import copy_zeros
from micronet_cli.training.batch_norm import freeze_batch_norm, reestimate_batch_norm
from micronet_cli.training.diagnose import explain_non_finite, non_finite_source
from micronet_cli.training.evaluate import autocast, evaluate
from micronet_cli.training.interrupt import StopRequest
from micronet_cli.training.kept import KeptNetworks
from micronet_cli.training.meter import Meter
from micronet_cli.training.objectives import Objective
from micronet_cli.training.optim import Optim
from micronet_cli.training.profile import StepProfiler
from micronet_cli.training.progress import Progress
from micronet_cli.training.settings import TrainerSettings
from micronet_cli.training.smallest_batch import check_smallest_batch
from micronet_cli.training.state import Place, Stateful, read_state, state_of

log = logging.getLogger(__name__)


class Trainer:
    """One training: the loop and its state.

    Args:
        trainer, optim: the settings.
        network: trained in place; after ``run`` it is the best network.
        objective: what is minimised.
        compressors: attached already.
        train, val: batches to learn from and to select by.
        run: where history, checkpoints and resume state go.
    """

    def __init__(
        self,
        trainer: TrainerSettings,
        optim: Optim,
        network: Network,
        objective: Objective,
        compressors: Sequence[Compressor],
        train: Batches,
        val: Batches,
        run: Run,
    ) -> None:
        self.settings = trainer
        self.network = network
        self.objective = objective
        self.compressors = compressors
        self.train = train
        self.val = val
        self.run_dir = run
        self.model = network.model.to(train.device, memory_format=torch.channels_last)
        self.steps_per_epoch = len(train) // trainer.accumulate_steps
        if not self.steps_per_epoch:
            raise UserError(
                f"trainer.accumulate_steps={trainer.accumulate_steps}: train has only {len(train)} batches of "
                f"data.batch_size={train.batch_size}"
            )
        always_frozen = trainer.freeze_bn_at == 0 and not trainer.reestimate_bn_batches
        check_smallest_batch(self.model, train, network.spec, always_frozen)
        if trainer.amp == "fp16" and any(compressor.reads_gradients for compressor in compressors):
            raise UserError("trainer.amp=fp16: its loss scale would enter what prune ranks by; use bf16 or none")
        self.total = min(trainer.epochs * self.steps_per_epoch, trainer.max_steps or sys.maxsize)
        self.epochs = math.ceil(self.total / self.steps_per_epoch)
        self.optimizer = optim.optimizer(self.model)
        self.objective_parameters = list(objective.parameters()) if isinstance(objective, nn.Module) else []
        if self.objective_parameters:
            self.optimizer.add_param_group({"params": self.objective_parameters})
        self.scheduler = optim.scheduler(self.optimizer, self.total, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(train.device.type, enabled=trainer.amp == "fp16")
        self.ema = ModelEmaV3(self.model, trainer.ema_decay) if trainer.ema_decay else None
        average = self.ema.module if self.ema else None
        self.stateful = Stateful(self.model, average, self.objective_parameters, self.optimizer, self.scaler)
        computing = torch.compile(self.model) if trainer.compile else self.model
        self.forward = distributed.data_parallel(computing)
        self.step = 0
        self.accumulated = 0
        self.kept = KeptNetworks(run, network)
        self.stop = StopRequest()
        profile_path = run.claim("profile.json") if trainer.profile and run.writes else None
        self.profiler = StepProfiler(profile_path)

    @property
    def reported(self) -> nn.Module:
        """The network that is evaluated and saved: the averaged one where there is one."""
        return self.ema.module if self.ema else self.model

    def run(self) -> dict[str, Any]:
        """Train to the end, from the saved state where the run resumes; the best network's val metrics.

        Raises:
            UserError: the loss is not finite.
            Interrupted: SIGINT or SIGTERM came; the state is saved.
        """
        if self.train.device.type == "cpu":
            keep_freed_memory()
        if self.run_dir.resume and self.run_dir.state.is_file():
            self.restore()
        images_per_step = self.train.batch_size * self.settings.accumulate_steps
        progress = Progress(self.step, self.total, images_per_step)
        with self.stop, progress.logging(), progress.bar:
            while self.step < self.total:
                figures = self.train_epoch(progress)
                self.finish_epoch(figures["loss"])
        self.profiler.finish()
        best = self.kept.best
        assert best is not None
        self.kept.load_best(self.reported)
        self.network.model = self.reported
        if self.settings.reestimate_bn_batches:
            return best | self.reestimate(self.settings.reestimate_bn_batches)
        return best

    def reestimate(self, batches: int) -> dict[str, float]:
        """Take the best network's BatchNorm statistics anew from so many batches; its val metrics then."""
        # An epoch that the training has not seen.
        fresh = islice(self.train.batches(self.epochs), batches)
        reestimate_batch_norm(self.reported, (images for images, _ in fresh))
        metrics = evaluate(self.reported, self.val, self.settings.amp)
        log.info("BatchNorm statistics taken anew: val top-1 %.2f %%", metrics["top1"])
        return {"val_top1": metrics["top1"], "val_loss": metrics["loss"]}

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        """The rest of the current epoch; the figures of its last interval."""
        settings = self.settings
        meter = Meter()
        figures: dict[str, float] = {}
        epoch, steps_done = divmod(self.step, self.steps_per_epoch)
        saved_at = time.perf_counter()
        self.model.train()
        for images, labels in self.train.batches(epoch, first=steps_done * settings.accumulate_steps):
            self.train_batch(images, labels, meter)
            if self.accumulated:
                continue
            progress.advance()
            self.profiler.step()
            ended = self.step % self.steps_per_epoch == 0 or self.step == self.total
            if self.step % settings.log_interval_steps == 0 or ended:
                figures = self.log_interval(epoch, meter, progress)
            if ended:
                break
            save_is_due = time.perf_counter() - saved_at > settings.checkpoint_minutes * 60
            if distributed.set_anywhere(self.stop.asked or save_is_due, self.train.device):
                self.save_state()
                saved_at = time.perf_counter()
        return figures

    def train_batch(self, images: Tensor, labels: Tensor, meter: Meter) -> None:
        """Forward and backward of a batch, and the optimiser step where it is due."""
        if not self.accumulated:
            self.prepare_step()
        with autocast(self.settings.amp, self.train.device):
            loss, logits = self.objective(self.forward, images, labels)
        value = loss.item()
        if not math.isfinite(value):
            with autocast(self.settings.amp, self.train.device):
                source = non_finite_source(self.model, images)
            raise UserError(explain_non_finite(value, self.step, source, self.run_dir.last))
        self.scaler.scale(loss / self.settings.accumulate_steps).backward()
        meter.add(value, logits, labels)
        self.accumulated += 1
        if self.accumulated == self.settings.accumulate_steps:
            self.accumulated = 0
            self.finish_step()

    def prepare_step(self) -> None:
        """Do what is due before an optimiser step: compressors, learning rate, frozen BatchNorm."""
        for compressor in self.compressors:
            compressor.update(self.step, self.total)
        self.scheduler.step_update(self.step)
        freeze_at = self.settings.freeze_bn_at
        if freeze_at is not None and self.step >= freeze_at * self.total:
            freeze_batch_norm(self.model)

    def finish_step(self) -> None:
        """The optimiser step, with the gradients of all its batches."""
        # The model's own gradients are averaged in its backward pass.
        distributed.average_gradients(self.objective_parameters)
        if self.settings.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema:
            self.ema.update(self.model, self.step)

    def finish_epoch(self, train_loss: float) -> None:
        """Evaluate on val, save, keep the best."""
        ended = self.step == self.total
        settled = self.update_after_epoch(ended)
        if self.ema:
            copy_zeros(self.model, self.ema.module)
        # A dict, not a set: the same order in every process.
        for model in dict.fromkeys((self.model, self.reported)):
            distributed.average_batch_norm(model)
        metrics = evaluate(self.reported, self.val, self.settings.amp)
        epoch = (self.step - 1) // self.steps_per_epoch
        line = {"kind": "epoch", "epoch": epoch, "step": self.step, "train_loss": train_loss}
        for key in ("top1", "top5", "loss"):
            line[f"val_{key}"] = metrics[key]
        self.run_dir.record(line)
        log.info("epoch %d/%d: val top-1 %.2f %%, loss %.4f", epoch + 1, self.epochs, metrics["top1"], metrics["loss"])
        # A network on the way to its target is not eligible; the last one always is.
        self.kept.add(self.reported, epoch, metrics, eligible=settled or ended)
        self.save_state()

    def update_after_epoch(self, ended: bool) -> bool:
        """Bring compressors to where the last step left them; whether all of them are at their final target."""
        # Within a run that is the step just done, which repeats its own update. At the end it is one further, so that
        # every target is reached even where a schedule ends with the run.
        step = self.step if ended else self.step - 1
        settled = [compressor.update(step, self.total) for compressor in self.compressors]
        return all(settled)

    def log_interval(self, epoch: int, meter: Meter, progress: Progress) -> dict[str, float]:
        """A line in the history, and in the log or on the bar."""
        figures = meter.take()
        figures["lr"] = self.optimizer.param_groups[0]["lr"]
        self.run_dir.record({"kind": "step", "epoch": epoch, "step": self.step, **figures})
        progress.show(self.step, figures)
        return figures

    def save_state(self) -> None:
        """Write everything that decides the next step; raise Interrupted where a signal asked to stop."""
        state = state_of(self.stateful, Place(self.step, self.total, self.kept.best))
        stop_requested_anywhere = distributed.set_anywhere(self.stop.asked, self.train.device)
        if distributed.rank() == 0:
            checkpoint.save_state(self.run_dir.claim(self.run_dir.state), state)
        if stop_requested_anywhere:
            raise Interrupted(f"stopped at step {self.step} of {self.total}")

    def restore(self) -> None:
        """Go back to the saved state.

        Raises:
            UserError: it is damaged, or of another network or optimiser.
        """
        place = read_state(self.stateful, self.run_dir.state, self.total)
        self.step = place.step
        self.kept.best = place.best
        self.run_dir.rewind_history(lambda line: line["step"] <= self.step)
        log.info("resumed at step %d of %d", self.step, self.total)
