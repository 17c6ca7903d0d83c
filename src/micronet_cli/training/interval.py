"""The steps between two lines of the history: where a GPU must not be waited for, their losses are read at the end."""

from typing import Any, NoReturn

from micronet_cli.data.protocol import Batches
from micronet_cli.errors import UserError
from micronet_cli.training.diagnose import explain_interval
from micronet_cli.training.learner import Learner
from micronet_cli.training.meter import Meter
from micronet_cli.training.settings import RunLength
from micronet_cli.training.state import Place, copied_state


class Interval:
    """The current interval, and the way back to its first step.

    A program runs ahead of a GPU, and waits for it where it reads a number. There the losses are read at the
    interval's end; where one is not finite the steps are done again and every loss is read.

    Args:
        learner: what makes the steps.
        length: of the run.
        train: batches to learn from.

    Attributes:
        runs_ahead: whether reading a number waits for a device.
    """

    def __init__(self, learner: Learner, length: RunLength, train: Batches) -> None:
        self.learner = learner
        self.length = length
        self.train = train
        self.runs_ahead = learner.device.type != "cpu"
        self._start: dict[str, Any] = {}

    def begin(self) -> None:
        """The next step is the first one; all processes have to call it."""
        learner = self.learner
        # One step alone is read as often either way.
        learner.defers = self.runs_ahead and not self._ends_at(learner.step + 1)
        self._start = {}  # its memory is free before the next copy is made
        if learner.defers:
            place = Place(learner.step, self.length.total, best=None)
            self._start = copied_state(learner.stateful, place)

    @property
    def ended(self) -> bool:
        """Whether the last step done is the interval's last one."""
        return self._ends_at(self.learner.step)

    def _ends_at(self, step: int) -> bool:
        return self.length.ends_epoch(step) or step % self.learner.settings.log_interval_steps == 0

    def repeat(self) -> NoReturn:
        """Do the steps again, for a loss of one of them is not finite.

        Raises:
            UserError: the loss that is not finite, with its step and layer; or there is none this time.
        """
        learner = self.learner
        end = learner.step
        learner.go_back(self._start)
        learner.defers = False
        first = learner.step
        epoch, steps_done = divmod(first, self.length.steps_per_epoch)
        batches_done = steps_done * learner.settings.accumulate_steps
        meter = Meter()
        for images, labels in self.train.batches(epoch, first=batches_done):
            learner.train_batch(images, labels, meter)
            if learner.step == end:
                break
        raise UserError(explain_interval(first, end - 1, learner.last))
