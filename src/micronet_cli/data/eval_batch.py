"""How many images go through a network at one time where nothing is learned from them."""

import torch

from micronet_cli.models.model import InputSpec

# Of a processor's memory, an image is the larger part of what a network holds: VGG has 64 floats a pixel at one time in
# each of two layers, which makes half a GiB. A GPU has more memory, and needs more images at one time to be busy.
PIXELS_TOGETHER = {"cpu": 1 << 20, "cuda": 1 << 24}
MOST_IMAGES = 256


def images_together(spec: InputSpec, device: torch.device) -> int:
    """From 1 to 256, the fewer the larger they are.

    >>> digits = InputSpec(size=(1, 8, 8), mean=(0.5,), std=(0.5,))
    >>> images_together(digits, torch.device("cpu"))
    256
    """
    _, height, width = spec.size
    pixels = PIXELS_TOGETHER.get(device.type, PIXELS_TOGETHER["cpu"])
    fitting = pixels // (height * width)
    return min(max(fitting, 1), MOST_IMAGES)
