"""Data sets: which images each split holds, and which classes they have."""

import numpy as np
import pytest
import torch
from PIL import Image

from micronet_cli.data.datasets import Cifar, Digits, ImageFolder
from micronet_cli.errors import UserError
from tests.data.test_loader import CPU, SPEC, batches, same


def test_digits_splits_are_disjoint_and_whole():
    data = Digits()
    indices = [data.source(split) for split in ("train", "val", "test")]
    assert [len(source.labels) for source in indices] == [1294, 144, 359]
    rest = np.concatenate([data.source("train").source.indices[data.source(s).indices] for s in ("train", "val")])
    assert len(set(rest) | set(data.source("test").indices)) == 1797


def test_normalisation_is_the_networks():
    loader = Digits().loader("test", SPEC, CPU)
    images, _ = next(loader.batches())
    assert images.shape == (256, 3, 16, 16)
    assert images.min() == pytest.approx(-2)
    assert images.max() == pytest.approx(2)


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


def test_held_out_val_is_not_trained_on(image_folder):
    data = ImageFolder(train=str(image_folder), val_fraction=0.25)
    train, val = data.source("train"), data.source("val")
    assert (len(train.labels), len(val.labels)) == (18, 6)
    assert not set(train.indices) & set(val.indices)


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


def test_a_sample_is_drawn_by_the_seed_and_not_augmented():
    data = Digits(augment="crop_flip")
    sample = batches(data.sample("train", 300, SPEC, CPU, seed=3))
    assert [len(labels) for _, labels in sample] == [256, 44]
    assert same(sample, batches(data.sample("train", 300, SPEC, CPU, seed=3)))
    assert not same(sample, batches(data.sample("train", 300, SPEC, CPU, seed=4)))
    whole = torch.cat([images for images, _ in batches(data.sample("train", 10**6, SPEC, CPU))])
    assert len(whole) == 1294
    assert all((whole == image).flatten(1).all(1).any() for image in sample[0][0][:5])
