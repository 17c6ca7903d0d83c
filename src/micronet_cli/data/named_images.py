"""Which images batches held, what they are called, and what they look like: for lists and pictures of mistakes."""

from typing import Protocol, runtime_checkable

from PIL import Image

from micronet_cli.data.protocol import Batches
from micronet_cli.distributed import rank, world_size


@runtime_checkable
class NamedImages(Protocol):
    """What batches of images that can be read in any order have; those of one's own data set need not."""

    def visited(self, images: int) -> list[int]:
        """Which ``images`` this process got first from an unshuffled epoch, those left out that did not decode."""
        ...

    def name(self, index: int) -> str:
        """What to call an image."""
        ...

    def picture(self, index: int) -> Image.Image | None:
        """The image as the network gets it, but for normalisation; None where it cannot be had again."""
        ...


class NumberedImages:
    """Images that come once: they are called by their number."""

    def visited(self, images: int) -> list[int]:
        """Processes take images by turns."""
        return [rank() + number * world_size() for number in range(images)]

    def name(self, index: int) -> str:
        """Its number."""
        return f"image {index}"

    def picture(self, index: int) -> None:
        """None: it does not come again."""


def named_images(batches: Batches) -> NamedImages:
    """The images of these batches, by number where they have no names."""
    if isinstance(batches, NamedImages):
        return batches
    return NumberedImages()
