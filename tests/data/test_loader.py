"""Loading: any batch of any epoch can be made again, in whatever way it is read."""

import pytest
import torch

from micronet_cli.data import base_loader, loader
from micronet_cli.data.datasets import Digits, ImageFolder
from micronet_cli.errors import UserError
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


PARTIAL = {
    "training leaves it out": ("train", 5, 4),
    "unless there is no other": ("train", 100, 1),
    "evaluation keeps it": ("test", 5, 5),
    "there is none": ("test", 6, 4),
}


@pytest.mark.parametrize(("split", "size", "expected"), PARTIAL.values(), ids=PARTIAL.keys())
def test_a_last_partial_batch(image_folder, split, size, expected):
    data = ImageFolder(**{split: str(image_folder)}, batch_size=size, eval_batch_size=size)
    if split == "train":
        data.val = str(image_folder)
    loader = data.loader(split, SPEC, CPU)
    assert len(batches(loader)) == len(loader) == expected


def test_training_visits_every_image_in_an_order_of_the_epoch():
    loader = Digits(batch_size=1294, augment="none").loader("train", SPEC, CPU)
    (first, labels), (second, other_labels) = (next(loader.batches(epoch)) for epoch in (0, 1))
    assert not torch.equal(labels, other_labels)
    assert torch.equal(labels.sort().values, other_labels.sort().values)
    assert torch.equal(first.sum((1, 2, 3)).sort().values, second.sum((1, 2, 3)).sort().values)


def test_evaluation_keeps_the_order_of_the_source():
    data = Digits()
    labels = torch.cat([labels for _, labels in data.loader("test", SPEC, CPU).batches(epoch=3)])
    assert labels.tolist() == data.source("test").labels.tolist()


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_processes_share_a_batch_as_one_would_have_had_it(image_folder, monkeypatch, cache_mb):
    data = ImageFolder(train=str(image_folder), batch_size=6, workers=0, cache_mb=cache_mb)
    whole = batches(data.loader("train", SPEC, CPU))
    parts = []
    for rank in range(2):
        for module in (loader, base_loader):
            monkeypatch.setattr(module, "world_size", lambda: 2)
            monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        parts.append(batches(data.loader("train", SPEC, CPU)))
    for (images, labels), even, odd in zip(whole, *parts, strict=True):
        assert torch.equal(images[0::2], even[0])
        assert torch.equal(images[1::2], odd[0])
        assert torch.equal(labels[1::2], odd[1])


def test_a_split_that_fits_into_memory_is_decoded_once(image_folder):
    loader = ImageFolder(test=str(image_folder)).loader("test", SPEC, CPU)
    before = batches(loader)
    for path in image_folder.glob("*/*.jpg"):
        path.unlink()
    assert same(before, batches(loader))


def test_a_training_batch_of_which_nothing_decodes_is_an_error(image_folder):
    data = ImageFolder(train=str(image_folder), val=str(image_folder), batch_size=4, workers=0, cache_mb=0)
    loader = data.loader("train", SPEC, CPU)
    for path in image_folder.glob("*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 4 files of a batch decodes"):
        batches(loader)


def test_batches_are_float_in_channels_last():
    images, labels = next(Digits().loader("test", SPEC, CPU).batches())
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
