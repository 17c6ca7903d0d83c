"""How far logits are from those of another network: squared error, and predictions that change."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LogitDistance:
    """Of logits from those of the network in float, over some images; distances over other images can be added.

    Attributes:
        error: squared differences of the logits, summed.
        signal: squares of the logits in float, summed.
        changed: images whose prediction is another one.
        images: all of them.
    """

    error: float = 0.0
    signal: float = 0.0
    changed: int = 0
    images: int = 0

    @classmethod
    def between(cls, in_float: Tensor, logits: Tensor) -> "LogitDistance":
        """Of ``logits`` from those in float, both ``[N, classes]``.

        >>> import torch
        >>> LogitDistance.between(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
        LogitDistance(error=5.0, signal=10.0, changed=1, images=1)
        """
        exact = in_float.double()
        difference = logits.double() - exact
        changed = logits.argmax(1) != in_float.argmax(1)
        return cls(
            error=float(difference.square().sum()),
            signal=float(exact.square().sum()),
            changed=int(changed.sum()),
            images=len(logits),
        )

    def __add__(self, other: "LogitDistance") -> "LogitDistance":
        """Over the images of both."""
        return LogitDistance(
            self.error + other.error,
            self.signal + other.signal,
            self.changed + other.changed,
            self.images + other.images,
        )

    @property
    def share_changed(self) -> float:
        """Of the predictions, in [0, 1]."""
        return self.changed / self.images

    @property
    def decibels(self) -> float:
        """Signal over error, 10 log10 of their quotient; infinite where there is no error.

        >>> LogitDistance(error=1.0, signal=100.0).decibels
        20.0
        """
        if self.error == 0:
            return math.inf
        if self.signal == 0:
            return -math.inf
        return 10 * math.log10(self.signal / self.error)
