import logging
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from micronet_cli.data.augment import Augmentation, crop_and_flip
from micronet_cli.data.datasets import Cifar, Digits, ImageFolder
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


def test_digits_splits_are_disjoint_and_whole():
    data = Digits()
    indices = [data.source(split) for split in ("train", "val", "test")]
    assert [len(source.labels) for source in indices] == [1294, 144, 359]
    rest = np.concatenate([data.source("train").source.indices[data.source(s).indices] for s in ("train", "val")])
    assert len(set(rest) | set(data.source("test").indices)) == 1797


def test_some_images_lie_at_equal_distances():
    loader = Digits().loader("val", SPEC, CPU)
    few = loader.some(5)
    assert few.indices.tolist() == loader.indices[[0, 36, 72, 107, 143]].tolist()
    assert [len(labels) for _, labels in few.batches()] == [5]
    assert loader.images == loader.some(1000).images == 144


def test_normalisation_is_the_networks():
    loader = Digits().loader("test", SPEC, CPU)
    images, _ = next(loader.batches())
    assert images.shape == (256, 3, 16, 16)
    assert images.min() == pytest.approx(-2)
    assert images.max() == pytest.approx(2)


@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip", "imagenet"])
@pytest.mark.parametrize("workers", [0, 2])
def test_any_batch_can_be_made_again(image_folder, augment, workers):
    data = ImageFolder(train=str(image_folder), augment=augment, batch_size=5, workers=workers, cache_mb=0)
    loader = data.loader("train", SPEC, CPU, seed=3)
    whole = batches(loader, epoch=1)
    assert same(whole[2:], batches(loader, epoch=1, first=2))
    assert not same(whole, batches(loader, epoch=2))


def test_memory_and_files_give_the_same_batches(image_folder):
    options = {"train": str(image_folder), "batch_size": 5, "workers": 0}
    loaders = [ImageFolder(**options, cache_mb=mb).loader("train", SPEC, CPU) for mb in (0, 100)]
    assert same(*(batches(loader) for loader in loaders))


def test_global_random_state_is_left_alone(image_folder):
    loader = ImageFolder(train=str(image_folder), augment="imagenet", workers=0).loader("train", SPEC, CPU)
    before = torch.get_rng_state()
    batches(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_tar_and_directory_hold_the_same(image_folder, tmp_path):
    tar = tmp_path / "images.tar"
    with tarfile.open(tar, "w") as file:
        file.add(image_folder, arcname=".")
    loaders = [ImageFolder(test=str(path)).loader("test", SPEC, CPU) for path in (image_folder, tar)]
    assert same(*(batches(loader) for loader in loaders))


def test_workers_open_a_tar_of_their_own(image_folder, tmp_path):
    tar = tmp_path / "images.tar"
    with tarfile.open(tar, "w") as file:
        file.add(image_folder, arcname=".")
    data = ImageFolder(test=str(tar), workers=2, cache_mb=0, eval_batch_size=2)
    loader = data.loader("test", SPEC, CPU)
    data.source("test").read(0)  # the tar is open before the workers are forked
    for _ in range(3):
        assert sum(len(labels) for _, labels in loader.batches()) == 24
    assert loader.corrupt == []


@pytest.mark.parametrize("cache_mb", [0, 100])
def test_corrupt_files_are_named_and_skipped(image_folder, caplog, cache_mb):
    (image_folder / "red" / "3.jpg").write_bytes(b"no image")
    whole = (image_folder / "blue" / "4.jpg").read_bytes()
    (image_folder / "blue" / "4.jpg").write_bytes(whole[:200])
    loader = ImageFolder(test=str(image_folder), cache_mb=cache_mb, workers=0).loader("test", SPEC, CPU)
    with caplog.at_level(logging.WARNING):
        found = batches(loader)
    assert sum(len(labels) for _, labels in found) == 22
    assert sorted(loader.corrupt) == ["blue/4.jpg", "red/3.jpg"]


def test_too_many_corrupt_files_are_an_error(image_folder):
    for number in range(3):
        (image_folder / "red" / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"data\.max_corrupt=2"):
        batches(ImageFolder(test=str(image_folder), max_corrupt=2).loader("test", SPEC, CPU))


def test_test_alone_names_the_classes(image_folder):
    assert ImageFolder(test=str(image_folder)).classes == ["blue", "red"]


def test_labels_follow_the_networks_class_order(image_folder):
    source = ImageFolder(test=str(image_folder)).source("test", ["red", "green", "blue"])
    assert sorted(set(source.labels)) == [0, 2]
    with pytest.raises(UserError, match="1 classes that the network does not know: red"):
        ImageFolder(test=str(image_folder)).source("test", ["blue"])


def test_val_has_an_image_of_any_train(image_folder):
    data = ImageFolder(train=str(image_folder), val_fraction=0.01)
    assert [len(data.source(split).labels) for split in ("train", "val")] == [23, 1]


def test_what_is_no_image_folder_is_answered(image_folder, tmp_path):
    with pytest.raises(UserError, match="outside of class folders"):
        ImageFolder(test=str(image_folder / "red")).source("test")
    (tmp_path / "cut.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"data\.test=.*no images in ImageFolder layout"):
        ImageFolder(test=str(tmp_path / "cut.tar")).source("test")
    with pytest.raises(ValueError, match="auto_augment='trivial'"):
        ImageFolder(test=str(image_folder), auto_augment="trivial")


@pytest.mark.parametrize(("images", "mixed"), [(4, 4), (5, 4), (1, 1)])
def test_an_odd_batch_is_mixed_but_for_one_image(images, mixed):
    augmentation = Augmentation(mixup=0.5, cutmix=0.5)
    found, labels = augmentation.batch(torch.randn(images, 3, 8, 8), torch.arange(images) % 3, 3, (0, 0))
    assert (len(found), len(labels)) == (mixed, mixed)


def test_held_out_val_is_not_trained_on(image_folder):
    data = ImageFolder(train=str(image_folder), val_fraction=0.25)
    train, val = data.source("train"), data.source("val")
    assert (len(train.labels), len(val.labels)) == (18, 6)
    assert not set(train.indices) & set(val.indices)


def test_crop_shifts_and_keeps_values():
    images = torch.arange(64, dtype=torch.uint8).view(1, 8, 8, 1).repeat(50, 1, 1, 1)
    shifted = crop_and_flip(images, np.arange(50), False, (0,))
    assert shifted.shape == images.shape
    kinds = {tuple(image.flatten().tolist()) for image in shifted}
    assert len(kinds) == 9
    assert tuple(range(64)) in kinds


def test_cifar_reads_torchvisions_layout(tmp_path, monkeypatch):
    import pickle

    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {"data": rng.integers(0, 255, (20, 3072), dtype=np.uint8), "labels": list(range(10)) * 2}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}))
    data = Cifar(root=str(tmp_path))
    assert [len(data.source(split).labels) for split in ("train", "val", "test")] == [90, 10, 20]
    assert isinstance(data.source("train").read(0), Image.Image)
    assert data.classes[3] == "class3"


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


def test_a_sample_is_drawn_by_the_seed_and_not_augmented():
    data = Digits(augment="crop_flip")
    sample = batches(data.sample("train", 300, SPEC, CPU, seed=3))
    assert [len(labels) for _, labels in sample] == [256, 44]
    assert same(sample, batches(data.sample("train", 300, SPEC, CPU, seed=3)))
    assert not same(sample, batches(data.sample("train", 300, SPEC, CPU, seed=4)))
    whole = torch.cat([images for images, _ in batches(data.sample("train", 10**6, SPEC, CPU))])
    assert len(whole) == 1294
    assert all((whole == image).flatten(1).all(1).any() for image in sample[0][0][:5])
