"""Guards the input of networks that state none: from data.input_size, else from the images; never a silent 224."""

from dataclasses import dataclass

import numpy as np
import pytest
from torch import nn

from micronet_cli.data.base import Data
from micronet_cli.data.sources import ArraySource
from micronet_cli.errors import UserError
from micronet_cli.stages.own_input import input_of


class Net(nn.Module):
    def __init__(self, channels=1, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.fc = nn.Linear(4, classes)

    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))


@dataclass(kw_only=True)
class Images(Data):
    shape: tuple[int, ...] = (8, 8)

    @property
    def own_class_names(self):
        return ["a", "b"]

    def source(self, split):
        return ArraySource(np.zeros((4, *self.shape), dtype=np.uint8), [0, 1, 0, 1])


@dataclass(kw_only=True)
class TwoSizes(Images):
    def source(self, split):
        source = super().source(split)
        source.images = [np.zeros((8, 8), np.uint8), *[np.zeros((9, 8), np.uint8)] * 3]
        return source


SIZES = {
    "grey images, grey network": (Net(1), Images(), (1, 8, 8)),
    "grey images, colour network": (Net(3), Images(), (3, 8, 8)),
    "colour images": (Net(3), Images(shape=(10, 12, 3)), (3, 10, 12)),
    "the config's size": (Net(1), Images(input_size=16), (1, 16, 16)),
    "several sizes and the config's": (Net(1), TwoSizes(input_size=16), (1, 16, 16)),
}


@pytest.mark.parametrize(("model", "data", "size"), SIZES.values(), ids=SIZES.keys())
def test_the_size_is_the_config_s_else_the_images(model, data, size):
    assert input_of(model, "net", data).size == size


def test_mean_and_deviation_are_the_data_s_else_imagenet_s():
    given = input_of(Net(1), "net", Images(mean=[0.25], std=[0.5]))
    assert (given.mean, given.std) == ((0.25,), (0.5,))
    assert input_of(Net(3), "net", Images()).mean == (0.485, 0.456, 0.406)
    with pytest.raises(ValueError, match="must be given together"):
        Images(mean=[0.5])


MISTAKES = {
    "several sizes": (Net(1), TwoSizes(), "data.input_size: missing; .* as 8 x 8 and 9 x 8; give data.input_size"),
    "too small": (Net(1), Images(input_size=2), r"does not take images of 1 x 2 x 2: RuntimeError: .*test_own_input"),
    "other classes": (Net(1, 7), Images(), r"answers an image with \[1, 7\] and the data have 2 classes"),
}


@pytest.mark.parametrize(("model", "data", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_does_not_fit_is_said(model, data, said):
    with pytest.raises(UserError, match=said):
        input_of(model, "net", data)
