"""The training loop: the only one. Objectives and compressors plug in."""

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli import checkpoint, distributed
from micronet_cli.compression.compressor import Compressor
from micronet_cli.data.protocol import Batches
from micronet_cli.errors import Interrupted
from micronet_cli.network import Network
from micronet_cli.runs.directory import Run
from micronet_cli.training.batch_norm import reestimate_batch_norm
from micronet_cli.training.evaluate import evaluate
from micronet_cli.training.interrupt import StopRequest
from micronet_cli.training.interval import Interval
from micronet_cli.training.kept import KeptNetworks
from micronet_cli.training.learner import Learner
from micronet_cli.training.meter import LossesNotFinite, Meter
from micronet_cli.training.objectives import Objective
from micronet_cli.training.optim import Optim
from micronet_cli.training.profile import StepProfiler
from micronet_cli.training.progress import Progress
from micronet_cli.training.settings import TrainerSettings
from micronet_cli.training.smallest_batch import check_smallest_batch
from micronet_cli.training.state import Place, read_state, state_of

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
        self.train = train
        self.val = val
        self.run_dir = run
        self.length = trainer.length(len(train), train.batch_size)
        model = network.model.to(train.device, memory_format=torch.channels_last)
        always_frozen = trainer.freeze_bn_at == 0 and not trainer.reestimate_bn_batches
        check_smallest_batch(model, train, network.spec, always_frozen)
        self.learner = Learner(
            settings=trainer,
            optim=optim,
            length=self.length,
            model=model,
            objective=objective,
            compressors=compressors,
            last=run.last,
        )
        self.interval = Interval(self.learner, self.length, train)
        self.kept = KeptNetworks(run, network)
        self.stop = StopRequest()
        profile_path = None
        if trainer.profile and run.writes:
            profile_path = run.claim("profile.json")
        self.profiler = StepProfiler(profile_path)

    def run(self) -> dict[str, Any]:
        """Train to the end, from the saved state where the run resumes; the best network's val metrics.

        Raises:
            UserError: the loss is not finite.
            Interrupted: SIGINT or SIGTERM came; the state is saved.
        """
        if self.run_dir.resume and self.run_dir.state.is_file():
            self.restore()
        self._train_to_the_end()
        best = self.kept.best
        assert best is not None
        reported = self.learner.reported
        self.kept.load_best(reported)
        self.network.model = reported
        if self.settings.reestimate_bn_batches:
            return best | self.reestimate(self.settings.reestimate_bn_batches)
        return best

    def _train_to_the_end(self) -> None:
        images_per_step = self.train.batch_size * self.settings.accumulate_steps
        progress = Progress(self.learner.step, self.length.total, images_per_step)
        with self.stop, progress.logging(), progress.bar:
            while self.learner.step < self.length.total:
                try:
                    figures = self.train_epoch(progress)
                except LossesNotFinite:
                    self.interval.repeat()
                self.finish_epoch(figures["loss"])
        self.profiler.finish()

    def reestimate(self, batches: int) -> dict[str, float]:
        """Take the best network's BatchNorm statistics anew from so many batches; its val metrics then."""
        reported = self.learner.reported
        reestimate_batch_norm(reported, self._fresh_images(batches))
        metrics = self._evaluate(reported)
        log.info("BatchNorm statistics taken anew: val top-1 %.2f %%", metrics["top1"])
        return {"val_top1": metrics["top1"], "val_loss": metrics["loss"]}

    def _evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Figures on val.

        Raises:
            UserError: an output is not finite.
        """
        return evaluate(model, self.val, self.settings.amp, group="trainer")

    def _fresh_images(self, batches: int) -> Iterator[Tensor]:
        """Batches of an epoch that the training has not seen."""
        unseen = self.train.batches(self.length.epochs)
        for images, _ in islice(unseen, batches):
            yield images

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        """The rest of the current epoch; the figures of its last interval.

        Raises:
            LossesNotFinite: a loss of the current interval is not finite, in any process.
        """
        learner = self.learner
        meter = Meter()
        figures: dict[str, float] = {}
        epoch, steps_done = divmod(learner.step, self.length.steps_per_epoch)
        batches_done = steps_done * self.settings.accumulate_steps
        saved_at = time.perf_counter()
        learner.model.train()
        self.interval.begin()
        for images, labels in self.train.batches(epoch, first=batches_done):
            learner.train_batch(images, labels, meter)
            if learner.accumulated:
                continue
            progress.advance()
            self.profiler.step()
            interval_ended = self.interval.ended
            if interval_ended:
                figures = self.log_interval(epoch, meter, progress)
            if self.length.ends_epoch(learner.step):
                break
            # A state whose losses are not read yet may be spent; and several processes wait to agree on a save.
            may_save = interval_ended or not learner.defers
            if may_save and self._save_is_due(saved_at):
                self.save_state()
                saved_at = time.perf_counter()
            if interval_ended:
                self.interval.begin()
        return figures

    def _save_is_due(self, saved_at: float) -> bool:
        """Whether a signal asked to stop, or the last state is too old, in any process."""
        age = time.perf_counter() - saved_at
        is_old = age > self.settings.checkpoint_minutes * 60
        return distributed.set_anywhere(self.stop.asked or is_old, self.train.device)

    def finish_epoch(self, train_loss: float) -> None:
        """Evaluate on val, save, keep the best."""
        learner = self.learner
        settled = learner.settle()
        metrics = self._evaluate(learner.reported)
        epoch = self.length.epoch_of(learner.step)
        line = {"kind": "epoch", "epoch": epoch, "step": learner.step, "train_loss": train_loss}
        for key in ("top1", "top5", "loss"):
            line[f"val_{key}"] = metrics[key]
        self.run_dir.record(line)
        log.info(
            "epoch %d/%d: val top-1 %.2f %%, loss %.4f",
            epoch + 1,
            self.length.epochs,
            metrics["top1"],
            metrics["loss"],
        )
        # A network on the way to its target is not eligible; the last one always is.
        is_last = learner.step == self.length.total
        self.kept.add(learner.reported, epoch, metrics, eligible=settled or is_last)
        self.save_state()

    def log_interval(self, epoch: int, meter: Meter, progress: Progress) -> dict[str, float]:
        """A line in the history, and in the log or on the bar."""
        step = self.learner.step
        figures = meter.take()
        first_group = self.learner.optimizer.param_groups[0]
        figures["lr"] = first_group["lr"]
        self.run_dir.record({"kind": "step", "epoch": epoch, "step": step, **figures})
        progress.show(step, figures)
        return figures

    def save_state(self) -> None:
        """Write everything that decides the next step; raise Interrupted where a signal asked to stop."""
        step = self.learner.step
        place = Place(step, self.length.total, self.kept.best)
        state = state_of(self.learner.stateful, place)
        stop_requested_anywhere = distributed.set_anywhere(self.stop.asked, self.train.device)
        if distributed.rank() == 0:
            path = self.run_dir.claim(self.run_dir.state)
            checkpoint.save_state(path, state)
        if stop_requested_anywhere:
            raise Interrupted(f"stopped at step {step} of {self.length.total}")

    def restore(self) -> None:
        """Go back to the saved state.

        Raises:
            UserError: it is damaged, or of another network or optimiser.
        """
        place = read_state(self.learner.stateful, self.run_dir.state, self.length.total)
        self.learner.step = place.step
        self.kept.best = place.best
        self.run_dir.rewind_history(lambda line: line["step"] <= place.step)
        log.info("resumed at step %d of %d", place.step, self.length.total)
