"""Augmentation: what is drawn for an image follows from its position, and values stay what they were."""

import numpy as np
import pytest
import torch

from micronet_cli.data.augment import Augmentation, crop_and_flip
from micronet_cli.data.datasets import ImageFolder
from tests.data.test_loader import CPU, SPEC, batches, same


@pytest.mark.parametrize(("images", "mixed"), [(4, 4), (5, 4), (1, 1)])
def test_an_odd_batch_is_mixed_but_for_one_image(images, mixed):
    augmentation = Augmentation(mixup=0.5, cutmix=0.5)
    found, labels = augmentation.batch(torch.randn(images, 3, 8, 8), torch.arange(images) % 3, 3, (0, 0))
    assert (len(found), len(labels)) == (mixed, mixed)


def test_crop_shifts_and_keeps_values():
    images = torch.arange(64, dtype=torch.uint8).view(1, 8, 8, 1).repeat(50, 1, 1, 1)
    shifted = crop_and_flip(images, np.arange(50), False, (0,))
    assert shifted.shape == images.shape
    kinds = {tuple(image.flatten().tolist()) for image in shifted}
    assert len(kinds) == 9
    assert tuple(range(64)) in kinds


def test_part_of_a_batch_is_augmented_as_in_the_whole():
    images = torch.arange(64, dtype=torch.uint8).view(1, 8, 8, 1).repeat(10, 1, 1, 1)
    whole = crop_and_flip(images, np.arange(10), True, (1, 2))
    part = crop_and_flip(images[1::2], np.arange(1, 10, 2), True, (1, 2))
    assert torch.equal(whole[1::2], part)


def test_mixing_gives_probabilities(image_folder):
    data = ImageFolder(train=str(image_folder), batch_size=8, mixup=0.5, cutmix=0.5, random_erasing=0.5)
    loader = data.loader("train", SPEC, CPU)
    once, again = batches(loader), batches(loader)
    assert same(once, again)
    labels = torch.cat([labels for _, labels in once])
    assert labels.shape == (16, 2)
    assert torch.allclose(labels.sum(1), torch.ones(16))
    assert ((labels > 0) & (labels < 1)).any()


def test_auto_augment_changes_images(image_folder):
    options = {"train": str(image_folder), "augment": "none", "batch_size": 18, "workers": 0}
    plain, changed = (
        next(ImageFolder(**options, auto_augment=policy).loader("train", SPEC, CPU).batches())
        for policy in (None, "rand-m9-n2")
    )
    assert torch.equal(plain[1], changed[1])
    assert not torch.equal(plain[0], changed[0])
