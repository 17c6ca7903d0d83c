"""How a training shows where it is: a bar on a terminal, lines in a log."""

import logging
from contextlib import AbstractContextManager, nullcontext

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from micronet_cli.distributed import rank

log = logging.getLogger(__name__)


class Progress:
    """Optimiser steps done of ``total``, shown by the first process alone.

    Args:
        step: steps done already.
        total: steps of the whole run.
        images_per_step: images of an optimiser step, to say how long the rest takes.
    """

    def __init__(self, step: int, total: int, images_per_step: int) -> None:
        self.total = total
        self.images_per_step = images_per_step
        # None leaves it to tqdm: no bar where the output is no terminal.
        disable = None if rank() == 0 else True
        self.bar = tqdm(
            total=total, initial=step, desc="train", unit="step", dynamic_ncols=True, disable=disable
        )  # fmt: skip

    def logging(self) -> AbstractContextManager:
        """Inside the block log lines appear above the bar, where there is one."""
        return nullcontext() if self.bar.disable else logging_redirect_tqdm()

    def advance(self) -> None:
        """One more step is done."""
        self.bar.update()

    def show(self, step: int, figures: dict[str, float]) -> None:
        """Show an interval's ``loss``, ``top1`` in percent and ``images_per_second``: on the bar, else in the log."""
        loss = figures["loss"]
        top1 = figures["top1"]
        speed = figures["images_per_second"]
        self.bar.set_postfix(loss=f"{loss:.3f}", top1=f"{top1:.1f}", img_s=f"{speed:.0f}")
        if self.bar.disable:
            seconds_left = (self.total - step) * self.images_per_step / speed
            log.info(
                "step %d/%d: loss %.4f, top-1 %.1f %%, %.0f images/s, %.0f s left",
                step, self.total, loss, top1, speed, seconds_left,
            )  # fmt: skip
