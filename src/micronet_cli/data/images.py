"""Image files to 8 bits a channel, in as many channels as a network takes, by Pillow."""

import warnings
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
# These formats have no 32-bit grey: what Pillow gives as "I" are their 16 bits.
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
WHAT_WIDE_MODES_HOLD = {"I": "32-bit integers", "F": "floating-point numbers"}
MODE_OF_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# The colours are what is read, as Pillow converts them; the transparency that it warns of is dropped on purpose.
warnings.filterwarnings("ignore", message="Palette images with Transparency")
warnings.filterwarnings("ignore", message="Corrupt EXIF data")


class UndecodableImage(OSError):
    """The file is damaged, or no image."""


class UnusableImage(Exception):
    """The file is whole, but what it holds is nothing that the network could take."""


@cache
def known_suffixes() -> frozenset[str]:
    """Suffixes of the formats that Pillow reads, as ``.webp``."""
    Image.preinit()  # the common formats first, for Pillow tries one after the other
    Image.init()
    suffixes = set()
    for suffix, image_format in Image.registered_extensions().items():
        if image_format in Image.OPEN and not _is_only_identified(image_format):
            suffixes.add(suffix)
    return frozenset(suffixes)


def _is_only_identified(image_format: str) -> bool:
    """Whether Pillow knows such files by their first bytes but has no decoder for them."""
    if image_format == "MPEG":
        return True
    opener = Image.OPEN[image_format][0]
    return isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)


def read_image(file: IO[bytes] | Path) -> Image.Image:
    """The first frame, upright, 8 bits a channel.

    Raises:
        UndecodableImage: it is damaged, or no image.
        UnusableImage: it holds 32-bit integers or floating-point numbers, whose range nobody knows.
    """
    try:
        image = Image.open(file)
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise all kinds of errors at damaged files
        raise UndecodableImage(str(error)) from error
    _turn_upright(image)
    return eight_bits(image)


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a damaged EXIF block, of which Pillow makes all kinds of errors, leaves the pixels as they are
        return


def eight_bits(image: Image.Image) -> Image.Image:
    """The image itself, or of 16-bit grey ``value / 257`` rounded, which takes 65535 to 255.

    Raises:
        UnusableImage: 32-bit integers or floating-point numbers.
    """
    is_wide_integer = image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS
    if image.mode in SIXTEEN_BIT_MODES or is_wide_integer:
        values = np.asarray(image).astype(np.uint32)
        rounded = (values + 128) // 257
        return Image.fromarray(rounded.astype(np.uint8))
    if image.mode in WHAT_WIDE_MODES_HOLD:
        raise UnusableImage(f"it holds {WHAT_WIDE_MODES_HOLD[image.mode]}; convert it to 8 or 16 bits a channel")
    return image


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """The image in 1 (grey), 2 (grey, alpha), 3 (colour) or 4 (colour, alpha) channels, as Pillow converts it.

    Raises:
        UnusableImage: the alpha channel is asked for, and it has none.
    """
    mode = MODE_OF_CHANNELS[channels]
    if image.mode == mode:
        return image
    needs_alpha = "A" in mode
    if needs_alpha and not image.has_transparency_data:
        raise UnusableImage(f"it has no alpha channel ({image.mode}), and the network takes {channels} channels")
    return image.convert(mode)
