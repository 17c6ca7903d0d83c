"""The training loop: the only one. Objectives and compressors plug in."""

import copy
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from micronet_cli import checkpoint, distributed
from micronet_cli.allocator import keep_freed_memory
from micronet_cli.compression.compressor import Compressor
from micronet_cli.data.loader import Loader
from micronet_cli.errors import Interrupted, UserError
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run
from micronet_cli.training.batch_norm import freeze_batch_norm, reestimate_batch_norm
from micronet_cli.training.diagnose import first_non_finite
from micronet_cli.training.evaluate import autocast, evaluate
from micronet_cli.training.interrupt import StopRequest
from micronet_cli.training.meter import Meter
from micronet_cli.training.objectives import Objective
from micronet_cli.training.optim import Optim
from micronet_cli.training.profile import StepProfiler
from micronet_cli.training.settings import TrainerSettings
from micronet_cli.training.state import restore_state, state_of

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
        train: Loader,
        val: Loader,
        run: Run,
    ) -> None:
        self.settings, self.network, self.objective = trainer, network, objective
        self.compressors, self.train, self.val, self.run_dir = compressors, train, val, run
        self.model = network.model.to(train.device, memory_format=torch.channels_last)
        self.steps_per_epoch = len(train) // trainer.accumulate_steps
        if not self.steps_per_epoch:
            raise UserError(
                f"trainer.accumulate_steps={trainer.accumulate_steps}: train has only {len(train)} batches of "
                f"data.batch_size={train.settings.batch_size}"
            )
        if trainer.amp == "fp16" and any(compressor.reads_gradients for compressor in compressors):
            raise UserError("trainer.amp=fp16: its loss scale would enter what prune ranks by; bf16 or none is wanted")
        self.total = min(trainer.epochs * self.steps_per_epoch, trainer.max_steps or sys.maxsize)
        self.epochs = -(-self.total // self.steps_per_epoch)
        self.optimizer = optim.optimizer(self.model)
        self.own = list(objective.parameters()) if isinstance(objective, nn.Module) else []
        if self.own:
            self.optimizer.add_param_group({"params": self.own})
        self.scheduler = optim.scheduler(self.optimizer, self.total, self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(train.device.type, enabled=trainer.amp == "fp16")
        self.ema = ModelEmaV3(self.model, trainer.ema_decay) if trainer.ema_decay else None
        self.forward = distributed.data_parallel(torch.compile(self.model) if trainer.compile else self.model)
        self.step = 0
        self.accumulated = 0
        self.best: dict[str, Any] | None = None
        self.stop = StopRequest()
        self.profiler = StepProfiler(run.claim("profile.json") if trainer.profile and run.writes else None)

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
        bar = tqdm(
            total=self.total, initial=self.step, desc="train", unit="step", dynamic_ncols=True,
            disable=None if distributed.rank() == 0 else True,
        )  # fmt: skip
        with self.stop, nullcontext() if bar.disable else logging_redirect_tqdm(), bar:
            while self.step < self.total:
                self.finish_epoch(self.train_epoch(bar))
        self.profiler.finish()
        assert self.best is not None
        if distributed.rank() == 0:
            self.reported.load_state_dict(checkpoint.load(str(self.run_dir.best)).model.state_dict())
        distributed.broadcast_model(self.reported)
        self.network.model = self.reported
        return self.reestimated() if self.settings.reestimate_bn_batches else self.best

    def reestimated(self) -> dict[str, Any]:
        """Take the best network's BatchNorm statistics anew; its val metrics then."""
        batches = islice(self.train.batches(self.epochs), self.settings.reestimate_bn_batches)
        reestimate_batch_norm(self.reported, (images for images, _ in batches))
        metrics = evaluate(self.reported, self.val, self.settings.amp)
        log.info("BatchNorm statistics taken anew: val top-1 %.2f %%", metrics["top1"])
        return (self.best or {}) | {"val_top1": metrics["top1"], "val_loss": metrics["loss"]}

    def train_epoch(self, bar: tqdm) -> dict[str, float]:
        """The rest of the current epoch; the figures of its last interval."""
        settings, meter = self.settings, Meter()
        shown: dict[str, float] = {}
        epoch, done = divmod(self.step, self.steps_per_epoch)
        saved = time.perf_counter()
        self.model.train()
        for images, labels in self.train.batches(epoch, first=done * settings.accumulate_steps):
            self.train_batch(images, labels, meter)
            if self.accumulated:
                continue
            bar.update()
            self.profiler.step()
            ended = self.step % self.steps_per_epoch == 0 or self.step == self.total
            if self.step % settings.log_interval_steps == 0 or ended:
                shown = self.log_interval(epoch, meter, bar)
            if ended:
                break
            if self.somebody(self.stop.asked or time.perf_counter() - saved > settings.checkpoint_minutes * 60):
                self.save_state()
                saved = time.perf_counter()
        return shown

    def train_batch(self, images: Tensor, labels: Tensor, meter: Meter) -> None:
        """Forward and backward of a batch, and the optimiser step where it is due."""
        settings = self.settings
        if not self.accumulated:
            for compressor in self.compressors:
                compressor.update(self.step, self.total)
            self.scheduler.step_update(self.step)
            if settings.freeze_bn_at is not None and self.step >= settings.freeze_bn_at * self.total:
                freeze_batch_norm(self.model)
        with autocast(settings.amp, self.train.device):
            loss, logits = self.objective(self.forward, images, labels)
        value = loss.item()
        if not torch.isfinite(loss):
            raise UserError(self.blame(images, value))
        self.scaler.scale(loss / settings.accumulate_steps).backward()
        meter.add(value, logits, labels)
        self.accumulated = (self.accumulated + 1) % settings.accumulate_steps
        if self.accumulated:
            return
        distributed.average_gradients(self.own)  # the model's are averaged in its backward pass
        if settings.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema:
            self.ema.update(self.model, self.step)

    def finish_epoch(self, shown: dict[str, float]) -> None:
        """Evaluate on val, save, keep the best."""
        # The last update reaches every target even where a schedule ends with the run.
        ended = self.step == self.total
        settled = [compressor.update(self.step - (not ended), self.total) for compressor in self.compressors]
        if self.ema:
            copy_zeros(self.model, self.ema.module)
        for model in dict.fromkeys((self.model, self.reported)):  # in the same order in every process
            distributed.average_batch_norm(model)
        metrics = evaluate(self.reported, self.val, self.settings.amp)
        epoch = (self.step - 1) // self.steps_per_epoch
        line = {"kind": "epoch", "epoch": epoch, "step": self.step, "train_loss": shown["loss"]}
        self.run_dir.record(line | {f"val_{key}": metrics[key] for key in ("top1", "top5", "loss")})
        log.info("epoch %d/%d: val top-1 %.2f %%, loss %.4f", epoch + 1, self.epochs, metrics["top1"], metrics["loss"])
        candidate = copy.copy(self.network)
        candidate.model = self.reported
        self.save(self.run_dir.last, candidate, {"epoch": epoch, "val_top1": metrics["top1"]})
        # A network on the way to its target is not eligible; the last one always is.
        eligible = all(settled) or ended
        if eligible and (self.best is None or metrics["top1"] >= self.best["val_top1"]):
            self.best = {"epoch": epoch, "val_top1": metrics["top1"], "val_loss": metrics["loss"]}
            self.save(self.run_dir.best, candidate, self.best)
        self.save_state()

    def save(self, path: Any, network: Network, metrics: dict[str, Any]) -> None:
        """Write a checkpoint, once."""
        if distributed.rank() == 0:
            checkpoint.save(self.run_dir.claim(path), network, metrics)

    def somebody(self, flag: bool) -> bool:
        """Whether ``flag`` is set in any process."""
        if distributed.world_size() == 1:
            return flag
        return bool(distributed.sum_over_ranks(torch.tensor(float(flag), device=self.train.device)))

    def log_interval(self, epoch: int, meter: Meter, bar: tqdm) -> dict[str, float]:
        """A line in the history, and in the log or on the bar."""
        found = meter.take() | {"lr": self.optimizer.param_groups[0]["lr"]}
        self.run_dir.record({"kind": "step", "epoch": epoch, "step": self.step, **found})
        speed = found["images_per_second"]
        bar.set_postfix(loss=f"{found['loss']:.3f}", top1=f"{found['top1']:.1f}", img_s=f"{speed:.0f}")
        if bar.disable:
            left = (self.total - self.step) * self.train.settings.batch_size * self.settings.accumulate_steps / speed
            log.info(
                "step %d/%d: loss %.4f, top-1 %.1f %%, %.0f images/s, %.0f s left",
                self.step, self.total, found["loss"], found["top1"], speed, left,
            )  # fmt: skip
        return found

    def save_state(self) -> None:
        """Write everything that decides the next step; raise Interrupted where a signal asked to stop."""
        state, asked = state_of(self), self.somebody(self.stop.asked)
        if distributed.rank() == 0:
            checkpoint.save_state(self.run_dir.claim(self.run_dir.state), state)
        if asked:
            raise Interrupted(f"stopped at step {self.step} of {self.total}")

    def restore(self) -> None:
        """Go back to the saved state.

        Raises:
            UserError: it is damaged, or of another network or optimiser.
        """
        state = checkpoint.load_state(self.run_dir.state)
        if state["total"] != self.total:
            log.warning("the run was %d steps long and is %d now: schedules shift", state["total"], self.total)
        try:
            restore_state(self, state)
        except (RuntimeError, ValueError, AttributeError, TypeError, KeyError) as error:
            raise UserError(
                f"resume=true: the state in {str(self.run_dir.state)!r} is of another network or optimiser "
                f"({str(error).splitlines()[0]}); use the run's own config, or leave resume out to start afresh"
            ) from None
        self.run_dir.rewind_history(lambda line: line["step"] <= self.step)
        log.info("resumed at step %d of %d", self.step, self.total)

    def blame(self, images: Tensor, value: float) -> str:
        """The message for a loss that is not finite: the step, and the first layer whose output is not."""
        bad = [name for name, p in self.model.named_parameters() if not p.isfinite().all()]
        with autocast(self.settings.amp, self.train.device):
            culprit = f"parameter {bad[0]}" if bad else first_non_finite(self.model, images)
        return (
            f"trainer: the loss is {value} at step {self.step}, first seen in {culprit}; "
            f"lower optim.lr, or set trainer.clip_grad_norm; the last checkpoint is {self.run_dir.last}"
        )


@torch.no_grad()
def copy_zeros(source: nn.Module, target: nn.Module) -> None:
    """Bring an average's masks up to date, and the parameters that a dropped filter leaves at exactly 0."""
    masks = {name: buffer for name, buffer in source.named_buffers() if buffer.dtype == torch.bool}
    for name, buffer in target.named_buffers():
        if name in masks:
            buffer.copy_(masks[name])
    for own, averaged in zip(source.parameters(), target.parameters(), strict=True):
        averaged.mul_(own != 0)
