"""Data sets by timm's names: WebDataset shards, and Hugging Face data sets of the hub or of a directory."""

import json

import pytest
import torch

from micronet_cli.data.streams import TimmStream
from micronet_cli.errors import UserError
from tests.data.shard_files import write_digit_shards
from tests.data.test_loader import CPU, SPEC, batches

pytest.importorskip("webdataset", reason="the extra data is not installed")


@pytest.fixture
def shards(tmp_path):
    """Two shards of 40 digits each."""
    write_digit_shards(tmp_path)
    return tmp_path


def stream(root, **options):
    settings = {"train": "part-{0..1}.tar", "test": "part-{0..1}.tar", "samples": {"train": 80, "test": 80}}
    return TimmStream(dataset="wds/", root=str(root), num_classes=10, batch_size=16, **settings | options)


def test_training_batches_are_normalised_and_mixed(shards):
    loader = stream(shards, augment="none", mixup=0.5).loader("train", SPEC, CPU)
    found = list(loader.batches())
    assert len(found) == len(loader) == 5
    assert all(images.shape == (16, 3, 16, 16) and labels.shape == (16, 10) for images, labels in found)


def test_a_sample_is_as_evaluation_sees_it(shards):
    data = stream(shards, augment="imagenet", mixup=0.5)
    images, labels = next(data.sample("train", 10, SPEC, CPU, seed=1).batches())
    assert labels.shape == (10,)
    whole = torch.cat([images for images, _ in batches(data.loader("test", SPEC, CPU))])
    assert all((whole == image).flatten(1).all(1).any() for image in images)


def test_shards_that_are_not_there_are_answered(tmp_path):
    with pytest.raises(UserError, match=r"data\.test: missing"):
        TimmStream(dataset="wds/", root="/nowhere", num_classes=10).loader("test", SPEC, CPU)
    with pytest.raises(UserError, match=r"data\.test='part-\{0\.\.1\}\.tar': wds/ does not open it .*part-0\.tar"):
        stream(tmp_path).loader("test", SPEC, CPU)


def test_training_needs_the_number_of_images(shards):
    with pytest.raises(UserError, match=r"data\.samples\.train: missing; training on a stream needs the number"):
        stream(shards, samples={}).loader("train", SPEC, CPU)


def test_a_stream_holds_nothing_out_of_train(shards):
    assert stream(shards, val=None).problems(["train", "val", "test"]) == [
        "data.val: missing; give data.val=<split or shards>"
    ]


def test_an_info_file_names_splits_and_counts(shards):
    split = {"name": "train", "num_samples": 80, "filenames": ["part-0.tar", "part-1.tar"], "shard_lengths": [40, 40]}
    (shards / "_info.json").write_text(json.dumps({"splits": {"train": split}}))
    loader = stream(shards, train="train", samples={}).loader("train", SPEC, CPU)
    assert loader.images == 80


WRONG = {
    "dataset='tfds/x': must be wds/, hfds/<name> or hfids/<name>": {"dataset": "tfds/x"},
    "num_classes=0: must be at least 1": {"num_classes": 0},
}


@pytest.mark.parametrize(("message", "options"), WRONG.items(), ids=WRONG.keys())
def test_a_value_out_of_range_is_named(message, options):
    with pytest.raises(ValueError, match=message):
        TimmStream(**{"dataset": "wds/", "root": ".", "num_classes": 2} | options)


def test_classes_are_the_labels_as_text(shards):
    assert stream(shards).class_names == [str(label) for label in range(10)]


def test_names_of_the_outputs_take_the_place_of_a_number(shards, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join("abcdefghijkl"))
    given = str(tmp_path / "names.txt")
    data = TimmStream(dataset="wds/", root=str(shards), test="part-0.tar", classes=given, workers=0)
    assert data.class_names == list("abcdefghijkl")
    assert data.loader("test", SPEC, CPU).classes == 12
    with pytest.raises(UserError, match=r"data\.num_classes=10: data\.classes='.*' lists 12; leave it null"):
        _ = stream(shards, classes=given).class_names
    assert len(TimmStream(dataset="wds/", root=str(shards)).class_names) == 1000


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    data = TimmStream(dataset="hfds/nothing", root="/nowhere", test="test", num_classes=10)
    with pytest.raises(UserError, match=r"data\.dataset='hfds/nothing': it needs the package datasets; pip install"):
        data.loader("test", SPEC, CPU)


def test_a_network_of_fewer_classes_bounds_the_labels(shards):
    data = stream(shards, workers=0)
    with pytest.raises(UserError, match="with 5 classes labels must be whole numbers from 0 to 4"):
        batches(data.loader("test", SPEC, CPU, classes=list("abcde")))
