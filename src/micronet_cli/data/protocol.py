"""What a data set is to the stages: the members that every one has, one of the user's own too.

``data.base.Data`` has them all but two for a set whose images can be read in any order.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from micronet_cli.models.model import InputSpec


class Batches(Protocol):
    """Some images, in batches that are ready for the network.

    Attributes:
        device: where batches are.
        classes: number of them; labels are below it.
        corrupt: names of the files that did not decode and were left out.
    """

    device: torch.device
    classes: int
    corrupt: list[str]

    @property
    def batch_size(self) -> int:
        """Images a batch, over all processes."""
        ...

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    @property
    def images(self) -> int:
        """Images an epoch."""
        ...

    def some(self, images: int) -> "Batches":
        """So many of these images, or all, at equal distances."""
        ...

    def batches(self, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's part of every batch of an epoch from number ``first`` on.

        Yields:
            images float ``[N, C, H, W]`` normalised; labels int64 ``[N]``, or probabilities ``[N, classes]`` if mixed.

        Raises:
            UserError: an image or a label that the run cannot go on with, by name.
        """
        ...


class DataSet(Protocol):
    """The ``data`` config group's object.

    Attributes:
        batch_size: images a training step, over all processes.
        input_size: height and width in pixels; None: the network's.
    """

    batch_size: int
    input_size: int | None

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of a network's outputs, which may be more than there are images of.

        Raises:
            UserError: what tells them is missing.
        """
        ...

    def problems(self, splits: Sequence[str]) -> list[str]:
        """What is missing of ``train``, ``val`` or ``test``, without opening them: a line a problem."""
        ...

    def loader(
        self,
        split: str,
        spec: InputSpec,
        device: torch.device,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> Batches:
        """A split in full, shuffled and augmented for ``train``.

        Args:
            split: ``train``, ``val`` or ``test``.
            spec: the network's input.
            device: where batches go.
            seed: decides every random choice.
            classes: names in the order of the network's outputs, which labels are indices of; None: ``class_names``.

        Raises:
            UserError: it cannot be opened, or it holds a class that is not among them.
        """
        ...

    def sample(
        self,
        split: str,
        images: int,
        spec: InputSpec,
        device: torch.device,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> Batches:
        """At most so many images of a split, drawn by ``seed``, as evaluation sees them."""
        ...


def missing_members(thing: object, protocol: type) -> list[str]:
    """Members of the protocol that a data set or its batches lack; none is asked for its value."""
    names = [name for name in dir(protocol) if not name.startswith("_")]
    names += protocol.__annotations__
    if "__len__" in vars(protocol):
        names.append("__len__")
    return sorted(name for name in names if not _has(thing, name))


def _has(thing: object, name: str) -> bool:
    return hasattr(type(thing), name) or name in getattr(thing, "__dict__", ())
