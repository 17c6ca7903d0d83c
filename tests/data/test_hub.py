"""Hugging Face data sets: rows and shards are read as files are; a small stand-in plays the package."""

import io
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image as PillowImage

from micronet_cli.data.hub import HubShards, HubSource
from micronet_cli.data.streams import TimmStream
from micronet_cli.errors import UserError
from tests.data.test_loader import CPU, SPEC, batches


def png(shade: int) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(np.full((8, 8), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Image:
    decode: bool = True


class ClassLabel:
    names = None


class Rows:
    """As much of a data set as is read: columns, rows, shards."""

    def __init__(self, rows, features):
        self.rows, self.features = rows, features
        self.num_shards = 2

    def cast_column(self, column, feature):
        return Rows(self.rows, self.features | {column: feature})

    def select_columns(self, columns):
        return Rows([{name: row[name] for name in columns} for row in self.rows], self.features)

    def shard(self, num_shards, index):
        return Rows(self.rows[index::num_shards], self.features)

    def __getitem__(self, key):
        if isinstance(key, slice):
            return {name: [row[name] for row in self.rows[key]] for name in self.rows[0]}
        return self.rows[key]

    def __iter__(self):
        for row in self.rows:
            if isinstance(row, Exception):
                raise row
            yield row


@pytest.fixture
def hub(monkeypatch):
    """Rows that ``load_dataset`` gives: a list to fill; images of the shades 0, 10, 20, ..."""
    rows = [{"img": {"bytes": png(10 * number), "path": None}, "fine": number % 3} for number in range(8)]

    def load_dataset(name, split, cache_dir, streaming):
        if name != "org/set":
            raise FileNotFoundError(f"no data set {name}\nand much more")
        return Rows(rows, {"img": Image(), "note": object(), "fine": ClassLabel()})

    library = types.ModuleType("datasets")
    library.Image, library.ClassLabel, library.load_dataset = Image, ClassLabel, load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    return rows


def data(dataset="hfds/org/set", **options) -> TimmStream:
    settings = {"root": ".", "train": "train", "test": "test", "num_classes": 3, "batch_size": 2, "workers": 0}
    return TimmStream(dataset=dataset, **settings | options)


def test_rows_are_images_with_labels_by_the_kind_of_their_columns(hub):
    source = HubSource("org/set", "train", ".")
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert source.read(3).getpixel((0, 0)) == 30
    assert source.name(3) == "row 3 of train"


def test_an_image_may_be_a_path(hub, tmp_path):
    (tmp_path / "1.png").write_bytes(png(99))
    hub[0]["img"] = {"bytes": None, "path": str(tmp_path / "1.png")}
    assert HubSource("org/set", "train", ".").read(0).getpixel((0, 0)) == 99


def test_shards_hold_every_row_once(hub):
    shards = HubShards("org/set", "train", ".")
    samples = [sample for shard in range(shards.count) for sample in shards.read(shard)]
    assert sorted(sample.label for sample in samples) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert samples[0].content == png(0)
    assert samples[0].name == "row 0 of shard 0 of train"


def test_a_shard_that_breaks_off_is_told(hub):
    hub[2] = ConnectionError("gone\nand much more")
    *_, last = HubShards("org/set", "train", ".").read(0)
    assert last.mistake == "shard 0 of train cannot be read to its end (gone)"


@pytest.mark.parametrize("dataset", ["hfds/org/set", "hfids/org/set"])
def test_both_kinds_have_every_member(hub, dataset):
    found = data(dataset, val="test", samples={"train": 8})
    assert found.loader("test", SPEC, CPU).images == 8
    assert found.loader("train", SPEC, CPU).images == 8
    assert sum(len(labels) for _, labels in batches(found.sample("train", 5, SPEC, CPU))) == 5
    assert sum(len(labels) for _, labels in batches(found.loader("test", SPEC, CPU).some(3))) == 3


@pytest.mark.parametrize("dataset", ["hfds/org/set", "hfids/org/set"])
def test_a_row_without_a_label_is_named(hub, dataset):
    hub[4]["fine"] = None
    row = "row 4 of test" if dataset.startswith("hfds") else "row 2 of shard 0 of test"
    with pytest.raises(UserError, match=rf"^data\.test: {row} has the label -1; .* from 0 to 2$"):
        batches(data(dataset).loader("test", SPEC, CPU))


@pytest.mark.parametrize("dataset", ["hfds/org/set", "hfids/org/set"])
def test_names_of_the_features_are_found_in_the_list(hub, monkeypatch, tmp_path, dataset):
    (tmp_path / "names.txt").write_text("ant\nowl\neel\ncat")
    given = data(dataset, classes=str(tmp_path / "names.txt"), num_classes=None)

    def labels():
        return sorted(label for _, found in batches(given.loader("test", SPEC, CPU)) for label in found.tolist())

    assert labels() == [0, 0, 0, 1, 1, 1, 2, 2]  # without names labels are outputs
    monkeypatch.setattr(ClassLabel, "names", ["cat", "eel", "ant"])
    given = data(dataset, classes=str(tmp_path / "names.txt"), num_classes=None)
    assert labels() == [0, 0, 2, 2, 2, 3, 3, 3]
    by_number = data(dataset).loader("test", SPEC, CPU)
    assert sorted(label for _, found in batches(by_number) for label in found.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2]
    monkeypatch.setattr(ClassLabel, "names", ["cat", "eel", "aunt"])
    given = data(dataset, classes=str(tmp_path / "names.txt"), num_classes=None)
    with pytest.raises(UserError, match=r"data\.test.*does not know.*did you mean ant"):
        labels()


def test_val_is_held_out_of_train_where_rows_are_read_in_any_order(hub):
    found = data(val_fraction=0.25)
    train, val = found.source("train"), found.source("val")
    assert (len(train.labels), len(val.labels)) == (6, 2)
    assert not set(train.indices) & set(val.indices)
    assert found.problems(["train", "val", "test"]) == []
    assert data("hfids/org/set").problems(["val"]) == ["data.val: missing; give data.val=<split or shards>"]


def test_a_set_that_does_not_open_is_one_error(hub):
    with pytest.raises(
        UserError, match=r"^data\.test='test': hfds/org/none does not open it \(no data set org/none\)$"
    ):
        data("hfds/org/none").loader("test", SPEC, CPU)


@pytest.mark.parametrize("dataset", ["hfds/", "hfids/"])
def test_the_package_itself_is_read(tmp_path, dataset):
    pytest.importorskip("datasets", reason="the package datasets is not installed")
    for number in range(6):
        folder = tmp_path / "set" / "train" / f"c{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(10 * number))
    own = data(
        f"{dataset}{tmp_path}/set", root=str(tmp_path / "cache"), test="train", val="train", samples={"train": 6}
    )
    labels = [label for _, found in batches(own.loader("test", SPEC, CPU)) for label in found.tolist()]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]
    assert sum(len(found) for _, found in batches(own.loader("train", SPEC, CPU))) == 6
    assert sum(len(found) for _, found in batches(own.sample("train", 4, SPEC, CPU))) == 4
