"""Sources: folders, tars and arrays of images hold the same; what cannot be read is named."""

import logging
import tarfile

import pytest

from micronet_cli.data.datasets import ImageFolder
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
