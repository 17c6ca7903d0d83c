"""The input of a network that states none, as most of one's own: from the config, else from the images themselves."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from micronet_cli.data.protocol import DataSet
from micronet_cli.dotted_path import failure
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec, of_channels

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
LOOKED_AT = 16  # images, at equal distances
COLOURS = 3
Shape = tuple[int, int, int]


def input_of(model: nn.Module, name: str, data: DataSet) -> InputSpec:
    """The input (channels, height, width) that the network takes of these images.

    The height and width are ``data.input_size``, else the images'; the channels are theirs, or as many as it takes.

    Raises:
        UserError: the images do not tell, or the network takes none of it.
    """
    shape = _shape_of(data, name)
    channels, *sides = shape
    reasons = []
    for count in dict.fromkeys([channels, COLOURS, 1]):
        spec = _spec((count, sides[0], sides[1]), data)
        try:
            logits = run_once(model, spec)
        except Exception as error:  # whatever the user's network does with images that it does not take
            reasons.append(f"{count} x {sides[0]} x {sides[1]}: {failure(error)}")
            continue
        _check_logits(logits, name, data.class_names)
        size = " x ".join(map(str, spec.size))
        source = "data.input_size" if data.input_size else "the images"
        has_statistics = bool(getattr(data, "mean", None))
        statistics = "data.mean and data.std" if has_statistics else "mean and std of ImageNet"
        log.info("%s states no input: %s from %s, %s", name, size, source, statistics)
        return spec
    listed = "\n".join(f"model: {name} does not take images of {reason}" for reason in reasons)
    raise UserError(f"{listed}\ngive data.input_size=<pixels> if they must have another size")


def run_once(model: nn.Module, spec: InputSpec) -> Any:
    """What a network says of an empty image, in evaluation mode."""
    image = torch.zeros(1, *spec.size)
    with torch.no_grad():
        return model.eval()(image)


def _check_logits(logits: Any, name: str, classes: Sequence[str]) -> None:
    """Raises UserError unless there is one logit a class."""
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (1, len(classes)):
        raise UserError(
            f"model: {name} answers an image with {list(shape) or type(logits).__name__} and the data have "
            f"{len(classes)} classes; it must return logits [images, classes] (an argument num_classes tells it)"
        )


def _spec(size: Shape, data: DataSet) -> InputSpec:
    mean = getattr(data, "mean", None) or IMAGENET_DEFAULT_MEAN
    std = getattr(data, "std", None) or IMAGENET_DEFAULT_STD
    return InputSpec(size, mean=of_channels(mean, size[0]), std=of_channels(std, size[0]))


def _shape_of(data: DataSet, name: str) -> Shape:
    """(channels, height, width) of the images.

    Raises:
        UserError: they have several sizes, or cannot be looked at, and no size is given.
    """
    shapes = _some_shapes(data)
    channels = shapes[0][0] if shapes else COLOURS
    if data.input_size:
        return channels, data.input_size, data.input_size
    missing = f"data.input_size: missing; {name} states no input size and"
    if not shapes:
        raise UserError(f"{missing} the images cannot be looked at; give data.input_size=<pixels>")
    if len({shape[1:] for shape in shapes}) > 1:
        (_, height, width), (_, other_height, other_width) = min(shapes), max(shapes)
        sizes = f"{height} x {width} and {other_height} x {other_width}"
        raise UserError(f"{missing} the images have several, as {sizes}; give data.input_size=<pixels>")
    return shapes[0]


def _some_shapes(data: DataSet) -> list[Shape]:
    """Shapes of a few images; none where they come in order only, or are not there."""
    source_of = getattr(data, "source", None)
    splits = [split for split in SPLITS if not data.problems((split,))]
    if source_of is None or not splits:
        return []
    try:
        source = source_of(splits[0])
        count = len(source.labels)
        places = np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int)
        images = [source.read(int(place)) for place in places]
    except (UserError, OSError, ValueError, AttributeError):
        return []  # the loader says what is wrong with them
    return [(len(image.getbands()), image.height, image.width) for image in images]
