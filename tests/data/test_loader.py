"""Loading: any batch of any epoch can be made again, in whatever way it is read."""

import pytest
import torch

from micronet_cli.data.datasets import Digits, ImageFolder
from micronet_cli.models.model import InputSpec

SPEC = InputSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3)
CPU = torch.device("cpu")


def batches(loader, **options):
    return [(images.clone(), labels.clone()) for images, labels in loader.batches(**options)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_some_images_lie_at_equal_distances():
    loader = Digits().loader("val", SPEC, CPU)
    few = loader.some(5)
    assert few.indices.tolist() == loader.indices[[0, 36, 72, 107, 143]].tolist()
    assert [len(labels) for _, labels in few.batches()] == [5]
    assert loader.images == loader.some(1000).images == 144


@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip", "imagenet"])
@pytest.mark.parametrize("workers", [0, 2])
def test_any_batch_can_be_made_again(image_folder, augment, workers):
    data = ImageFolder(train=str(image_folder), augment=augment, batch_size=5, workers=workers, cache_mb=0)
    loader = data.loader("train", SPEC, CPU, seed=3)
    whole = batches(loader, epoch=1)
    assert same(whole[2:], batches(loader, epoch=1, first=2))
    assert not same(whole, batches(loader, epoch=2))


def test_global_random_state_is_left_alone(image_folder):
    loader = ImageFolder(train=str(image_folder), augment="imagenet", workers=0).loader("train", SPEC, CPU)
    before = torch.get_rng_state()
    batches(loader)
    assert torch.equal(torch.get_rng_state(), before)
