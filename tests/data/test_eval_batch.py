"""The size of an evaluation's batches: bounded by what images take, large where they are small."""

import pytest
import torch

from micronet_cli.data.eval_batch import images_together
from micronet_cli.models.model import InputSpec

# (height, width) -> images on a CPU, on a GPU
SIZES = {
    "digits": ((8, 8), 256, 256),
    "as many pixels as 256 images may have": ((64, 64), 256, 256),
    "a row more": ((65, 64), 252, 256),
    "ImageNet": ((224, 224), 20, 256),
    "more than a GPU takes 256 of": ((512, 512), 4, 64),
    "an image that is too large alone": ((4096, 8192), 1, 1),
}


@pytest.mark.parametrize(("size", "on_cpu", "on_gpu"), SIZES.values(), ids=SIZES.keys())
def test_the_larger_the_images_the_fewer(size, on_cpu, on_gpu):
    spec = InputSpec((3, *size), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert images_together(spec, torch.device("cpu")) == on_cpu
    assert images_together(spec, torch.device("cuda")) == on_gpu
