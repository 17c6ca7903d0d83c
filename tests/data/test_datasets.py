"""Data sets: which images each split holds, and which classes they have."""

import numpy as np
import pytest
import torch
from PIL import Image

from micronet_cli.data.datasets import Cifar, Digits, ImageFolder, NoImages
from micronet_cli.errors import UserError
from tests.data.test_loader import CPU, SPEC, batches, same


def test_digits_splits_are_disjoint_and_whole():
    data = Digits()
    indices = [data.source(split) for split in ("train", "val", "test")]
    assert [len(source.labels) for source in indices] == [1294, 144, 359]
    rest = np.concatenate([data.source("train").source.indices[data.source(s).indices] for s in ("train", "val")])
    assert len(set(rest) | set(data.source("test").indices)) == 1797


WRONG = {
    "batch_size=0": {"batch_size": 0},
    "eval_batch_size=-1: must be at least 1, or auto": {"eval_batch_size": -1},
    "batch_size=5: must be even for mixup and cutmix": {"batch_size": 5, "cutmix": 1.0},
    "random_erasing=1.5: must be a probability": {"random_erasing": 1.5},
    "val_fraction=1: must be a fraction in": {"val_fraction": 1},
    "val_fraction=0: must be a fraction in": {"val_fraction": 0},
    "auto_augment='trivial': timm knows no such policy": {"auto_augment": "trivial"},
}


@pytest.mark.parametrize(("message", "options"), WRONG.items(), ids=WRONG.keys())
def test_a_value_out_of_range_is_named(message, options):
    with pytest.raises(ValueError, match=message):
        Digits(**options)


def test_digits_are_scaled_to_the_whole_range_of_bytes():
    source = Digits().source("train")
    image = source.read(0)
    assert (image.size, image.mode) == ((8, 8), "L")
    values = {value for index in range(50) for value in np.asarray(source.read(index)).flat}
    assert values == {round(step * 255 / 16) for step in range(17)}
    assert Digits().class_names == list("0123456789")


def test_the_split_seed_draws_other_images():
    own, other = (Digits(split_seed=seed).source("test") for seed in (0, 1))
    assert len(own.labels) == len(other.labels)
    assert set(own.indices) != set(other.indices)


def test_a_batch_is_the_training_or_the_evaluation_size():
    data = Digits(batch_size=10, eval_batch_size=30)
    sizes = {split: len(next(data.loader(split, SPEC, CPU).batches())[1]) for split in ("train", "val", "test")}
    assert sizes == {"train": 10, "val": 30, "test": 30}


def test_paths_that_are_missing_or_not_there_are_all_named():
    data = ImageFolder(val="/nowhere/val")
    assert data.problems(["train", "val", "test"]) == [
        "data.train: missing; give data.train=<directory or tar with a folder a class>",
        "data.val='/nowhere/val': no such file or directory",
        "data.test: missing; give data.test=<directory or tar with a folder a class>",
    ]


def test_a_val_that_is_held_out_needs_train():
    assert ImageFolder().problems(["val", "train"]) == [
        "data.train: missing; give data.train=<directory or tar with a folder a class>"
    ]
    with pytest.raises(UserError, match=r"data\.train: missing"):
        ImageFolder().source("val")


def test_a_val_of_its_own_leaves_train_whole(image_folder):
    data = ImageFolder(train=str(image_folder), val=str(image_folder))
    assert [len(data.source(split).labels) for split in ("train", "val")] == [24, 24]


def test_the_home_directory_is_expanded(image_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(image_folder.parent))
    data = ImageFolder(test="~/images")
    assert data.problems(["test"]) == []
    assert len(data.source("test").labels) == 24


def test_an_archive_that_is_not_there_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=.*: no CIFAR-100 there \(.*data\.download=true"):
        Cifar(variant=100, root=str(tmp_path)).source("train")


def test_normalisation_is_the_networks():
    loader = Digits().loader("test", SPEC, CPU)
    images, _ = next(loader.batches())
    assert images.shape == (256, 3, 16, 16)
    assert images.min() == pytest.approx(-2)
    assert images.max() == pytest.approx(2)


def test_test_alone_names_the_classes(image_folder):
    assert ImageFolder(test=str(image_folder)).class_names == ["blue", "red"]


def test_labels_follow_the_networks_class_order(image_folder):
    source = ImageFolder(test=str(image_folder)).labelled("test", ["red", "green", "blue"])
    assert sorted(set(source.labels)) == [0, 2]
    with pytest.raises(UserError, match=r"data\.test='.*': 1 classes that the network does not know: red"):
        ImageFolder(test=str(image_folder)).labelled("test", ["blue"])


def test_splits_may_hold_different_classes_of_a_list(image_folder, tmp_path):
    for split, colour in (("train", "red"), ("test", "blue")):
        (tmp_path / split).mkdir()
        (image_folder / colour).rename(tmp_path / split / colour)
    (tmp_path / "names.txt").write_text("green\nred\nblue\n")
    paths = {"train": str(tmp_path / "train"), "test": str(tmp_path / "test")}
    data = ImageFolder(**paths, classes=str(tmp_path / "names.txt"), val_fraction=0.25)
    assert data.class_names == ["green", "red", "blue"]
    assert {split: set(data.labelled(split).labels) for split in ("train", "val", "test")} == {
        "train": {1}, "val": {1}, "test": {2},
    }  # fmt: skip
    assert data.loader("train", SPEC, CPU).classes == 3
    with pytest.raises(UserError, match=r"data\.test='.*': 1 classes that the network does not know: blue"):
        ImageFolder(**paths).labelled("test")


def test_a_held_out_class_that_is_unknown_is_told_by_its_path(image_folder):
    with pytest.raises(UserError, match=r"^data\.train='.*images': 2 classes"):
        ImageFolder(train=str(image_folder)).labelled("val", ["green"])


def test_digits_follow_a_list_of_names(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(reversed("0123456789")))
    data = Digits(classes=str(tmp_path / "names.txt"))
    assert data.labelled("test").labels.tolist() == (9 - data.source("test").labels).tolist()


def test_no_images_have_no_split_and_the_names_of_a_list(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog")
    assert NoImages().class_names == []
    assert NoImages(classes=str(tmp_path / "names.txt")).class_names == ["cat", "dog"]
    (problem,) = NoImages().problems(["test"])
    assert problem == "data.test: missing; choose a data set, as data=imagefolder data.test=PATH"


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
    assert data.class_names[3] == "class3"


def test_a_sample_is_drawn_by_the_seed_and_not_augmented():
    data = Digits(augment="crop_flip")
    sample = batches(data.sample("train", 300, SPEC, CPU, seed=3))
    assert [len(labels) for _, labels in sample] == [256, 44]
    assert same(sample, batches(data.sample("train", 300, SPEC, CPU, seed=3)))
    assert not same(sample, batches(data.sample("train", 300, SPEC, CPU, seed=4)))
    whole = torch.cat([images for images, _ in batches(data.sample("train", 10**6, SPEC, CPU))])
    assert len(whole) == 1294
    assert all((whole == image).flatten(1).all(1).any() for image in sample[0][0][:5])
