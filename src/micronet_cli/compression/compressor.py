"""What a compressor is: pruners, quantisers, and the changes that a checkpoint replays."""

from typing import Protocol

from torch import nn


class Compressor(Protocol):
    """Changes a network's structure once, then its values while it is trained."""

    @property
    def reads_gradients(self) -> bool:
        """Whether gradients of several steps are added up, so that all must have one scale."""
        ...

    def attach(self, model: nn.Module) -> None:
        """Change the structure only: the same config makes the same structure, so that a checkpoint can replay it.

        Raises:
            ValueError: the compressor does not fit the network.
        """
        ...

    def update(self, step: int, total_steps: int) -> bool:
        """Do what is due before optimiser step ``step`` of ``total_steps``; True when at the final target.

        A step before the last one means that the network was put back to what it was then: go on as a resumed run.
        """
        ...

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> columns of the run's table: the layer's rule and targets. Empty where there is nothing to show."""
        ...
