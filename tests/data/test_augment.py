"""Augmentation: what is drawn for an image follows from its position, and values stay what they were."""

import numpy as np
import pytest
import torch
from PIL import Image

from micronet_cli.data.augment import Augmentation, crop_and_flip, image_transform
from micronet_cli.data.datasets import ImageFolder
from micronet_cli.models.model import InputSpec
from tests.data.test_loader import CPU, SPEC, batches, same

MIXED = {"even": (4, 4), "odd": (5, 4), "a single image": (1, 1)}


@pytest.mark.parametrize(("images", "mixed"), MIXED.values(), ids=MIXED.keys())
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


def test_zeros_come_in_where_an_image_is_shifted():
    images = torch.full((20, 8, 8, 3), 9, dtype=torch.uint8)
    shifted = crop_and_flip(images, np.arange(20), False, (0,))
    assert set(shifted.unique().tolist()) == {0, 9}
    zero_rows = (shifted == 0).all(-1).all(-1).sum(1)
    assert zero_rows.max() == 1


def test_half_of_the_images_are_mirrored():
    images = torch.zeros((200, 8, 8, 1), dtype=torch.uint8)
    images[:, :, :3] = 1
    flipped = crop_and_flip(images, np.arange(200), True, (5,))
    left = flipped[:, :, :4].sum((1, 2, 3))
    right = flipped[:, :, 4:].sum((1, 2, 3))
    mirrored = int((right > left).sum())
    assert 80 < mirrored < 120
    never = crop_and_flip(images, np.arange(200), False, (5,))
    assert (never[:, :, :4].sum((1, 2, 3)) > never[:, :, 4:].sum((1, 2, 3))).all()


def test_images_of_less_than_eight_pixels_are_not_shifted():
    images = torch.arange(49, dtype=torch.uint8).view(1, 7, 7, 1)
    assert torch.equal(crop_and_flip(images, np.arange(1), False, (0,)), images)


def test_an_empty_part_of_a_batch_stays_empty():
    images = torch.zeros((0, 8, 8, 3), dtype=torch.uint8)
    assert crop_and_flip(images, np.arange(0), True, (0,)).shape == (0, 8, 8, 3)


def test_erasing_fills_a_rectangle_of_every_image_at_probability_one():
    images = torch.zeros(6, 3, 32, 32)
    labels = torch.arange(6)
    erased, kept = Augmentation(random_erasing=1.0).batch(images.clone(), labels, 6, (0, 1))
    changed = (erased != 0).flatten(1).float().mean(1)
    assert torch.equal(kept, labels)
    assert ((changed > 0) & (changed < 0.5)).all()


def test_without_erasing_and_mixing_a_batch_is_left_alone():
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    found = Augmentation(kind="crop_flip").batch(images, labels, 4, (0,))
    assert found[0] is images
    assert found[1] is labels


ONLY_IMAGENET_AND_POLICIES = {
    "none": (Augmentation(), False),
    "crop_flip": (Augmentation("crop_flip", mixup=1.0, random_erasing=1.0), False),
    "imagenet": (Augmentation("imagenet"), True),
    "a policy": (Augmentation("crop", auto_augment="rand-m9"), True),
}


@pytest.mark.parametrize(
    ("augmentation", "per_image"), ONLY_IMAGENET_AND_POLICIES.values(), ids=ONLY_IMAGENET_AND_POLICIES.keys()
)
def test_images_change_while_they_are_decoded_with_imagenet_and_policies_only(augmentation, per_image):
    assert augmentation.per_image is per_image


def test_evaluation_resizes_and_crops_as_the_network_says():
    spec = InputSpec((3, 16, 16), (0.5,) * 3, (0.25,) * 3, interpolation="nearest", crop_pct=0.5)
    image = Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32).astype(np.uint8)).convert("RGB")
    pixels = np.asarray(image_transform(spec, None)(image))
    # The side is resized to 16 / 0.5 = 32, which it is, and the middle 16 are taken.
    assert (pixels == np.asarray(image)[8:24, 8:24].transpose(2, 0, 1)).all()


def test_an_augmentation_of_whole_batches_leaves_decoding_as_in_evaluation():
    spec = InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8))
    training = image_transform(spec, Augmentation("crop_flip"))
    assert (training(image) == image_transform(spec, None)(image)).all()


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
