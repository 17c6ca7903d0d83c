"""Sources: folders, tars and arrays of images hold the same; what cannot be read is named."""

import logging
import tarfile

import numpy as np
import pytest
from PIL import Image

from micronet_cli.data.datasets import ImageFolder
from micronet_cli.data.sources import ArraySource, FileSource, Subset, relabelled, split_off
from micronet_cli.errors import UserError
from tests.data.test_loader import CPU, SPEC, batches, same


def test_memory_and_files_give_the_same_batches(image_folder):
    options = {"train": str(image_folder), "batch_size": 5, "workers": 0}
    loaders = [ImageFolder(**options, cache_mb=mb).loader("train", SPEC, CPU) for mb in (0, 100)]
    assert same(*(batches(loader) for loader in loaders))


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


def test_what_is_no_image_folder_is_answered(image_folder, tmp_path):
    with pytest.raises(UserError, match="outside of class folders"):
        ImageFolder(test=str(image_folder / "red")).source("test")
    (tmp_path / "cut.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"data\.test=.*no images in ImageFolder layout"):
        ImageFolder(test=str(tmp_path / "cut.tar")).source("test")
    with pytest.raises(ValueError, match="auto_augment='trivial'"):
        ImageFolder(test=str(image_folder), auto_augment="trivial")


def test_an_array_gives_images_and_numbers_them():
    source = ArraySource(np.full((2, 4, 5), 7, np.uint8), [1, 0])
    image = source.read(1)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("L", (5, 4), 7)
    assert source.name(1) == "image 1"
    assert source.labels.dtype == np.int64


def test_relabelling_keeps_the_files_and_leaves_the_source_alone(image_folder):
    source = FileSource(str(image_folder), "data.test")
    names = ["red", "green", "blue"]
    other = relabelled(source, source.classes, names, "data.test")
    assert [source.classes[label] for label in source.labels] == [names[label] for label in other.labels]
    assert set(source.labels) == {0, 1}
    assert relabelled(source, ["blue", "red"], ["blue", "red"], "data.test") is source
    assert other.name(0) == source.name(0) == "blue/0.jpg"


def test_a_subset_is_of_its_indices():
    source = ArraySource(np.arange(5, dtype=np.uint8)[:, None, None], [0, 1, 2, 3, 4])
    subset = Subset(source, np.array([4, 1]))
    assert subset.labels.tolist() == [4, 1]
    assert subset.name(0) == "image 4"
    assert subset.read(1).getpixel((0, 0)) == 1


SHARES = {
    "about the fraction": (0.25, 20, 5),
    "none is empty": (0.001, 20, 1),
    "nor is the rest": (0.999, 20, 19),
}


@pytest.mark.parametrize(("fraction", "count", "expected"), SHARES.values(), ids=SHARES.keys())
def test_split_parts_are_disjoint_and_whole(fraction, count, expected):
    source = ArraySource(np.zeros((count, 1, 1), np.uint8), range(count))
    rest, part = split_off(source, fraction, seed=3)
    assert len(part.labels) == expected
    assert sorted([*rest.labels, *part.labels]) == list(range(count))
    assert list(part.labels) == sorted(part.labels)
    again = split_off(source, fraction, seed=3)
    assert again[1].labels.tolist() == part.labels.tolist()


def folder_of(root, **images):
    for name, count in images.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (8, 8), number).save(root / name / f"{number}.png")
    return root


def test_classes_and_counts_are_told_on_one_line(tmp_path, caplog):
    root = folder_of(tmp_path / "set", cat=2, dog=1)
    (root / "cat" / "0.npy").touch()
    (root / "README").touch()
    with caplog.at_level(logging.INFO):
        data = ImageFolder(test=str(root))
        data.loader("test", SPEC, CPU)
        data.loader("test", SPEC, CPU)
    assert [record.getMessage() for record in caplog.records] == [
        f"data.test={str(root)!r}: 3 images in 2 classes (cat 2, dog 1); left out, no images: 2 (README, cat/0.npy)"
    ]


def test_many_classes_are_summed_up(tmp_path):
    root = folder_of(tmp_path / "set", **{f"c{number}": 1 + number % 2 for number in range(12)})
    assert FileSource(str(root), "data.test").summary().endswith("18 images in 12 classes (1 to 2 each)")


def test_an_empty_class_stays_and_is_warned_of(tmp_path, caplog):
    root = folder_of(tmp_path / "set", cat=2, dog=0, eel=1)
    source = FileSource(str(root), "data.train")
    assert (source.classes, source.labels.tolist()) == (["cat", "dog", "eel"], [0, 0, 2])
    assert f"data.train={str(root)!r}: classes of 0 images: 1 (dog)" in caplog.messages


def test_an_empty_class_that_the_network_does_not_know_is_no_mistake(tmp_path):
    source = FileSource(str(folder_of(tmp_path / "set", cat=2, dog=0)), "data.test")
    assert relabelled(source, source.classes, ["fox", "cat"], "data.test").labels.tolist() == [1, 1]


def test_a_label_out_of_range_stays_out_of_range():
    source = ArraySource(np.zeros((4, 1, 1), np.uint8), [0, 1, 2, -1])
    found = relabelled(source, ["cat", "dog"], ["ant", "bee", "cat", "dog"], "data.test")
    assert found.labels.tolist() == [2, 3, -1, -1]


def test_classes_that_the_network_does_not_know_are_named_with_near_misses():
    source = ArraySource(np.zeros((2, 1, 1), np.uint8), [1, 0])
    with pytest.raises(UserError) as caught:
        relabelled(source, ["cat", "woolf"], ["wolf", "fox"], "data.test='set'")
    assert str(caught.value) == (
        "data.test='set': 2 classes that the network does not know: cat, woolf (did you mean wolf?)"
    )


def test_half_a_set_in_another_format_is_read(tmp_path):
    root = folder_of(tmp_path / "set", cat=2, dog=2)
    for path in (root / "dog").iterdir():
        Image.open(path).save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    source = FileSource(str(root), "data.test")
    assert source.counts == {"cat": 2, "dog": 2}
    assert [source.read(index).convert("L").getpixel((0, 0)) for index in range(4)] == [0, 1, 0, 1]
