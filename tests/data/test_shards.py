"""Shards: what a sample is, that several readers read everything once, and that a damaged shard is told."""

import io
import tarfile
from collections import Counter
from dataclasses import dataclass

import pytest

from micronet_cli.data import shards as module
from micronet_cli.data.randomness import rng_at
from micronet_cli.data.shards import RawSample, WebDatasetShards, read_part, shuffled
from tests.data.shard_files import write_sample

pytest.importorskip("webdataset", reason="the extra data is not installed")


@dataclass
class Numbers:
    """Shards of numbered samples: shard 0 has 0, 1, ..., shard 1 the numbers after them."""

    sizes: tuple[int, ...]

    @property
    def count(self):
        return len(self.sizes)

    def read(self, shard):
        first = sum(self.sizes[:shard])
        for number in range(first, first + self.sizes[shard]):
            yield RawSample(str(number), number, b"")


def numbers(samples) -> list[int]:
    return [int(sample.name) for sample in samples]


READERS = {
    "one": ((5, 5), 1),
    "a shard each": ((5, 5), 2),
    "shards are unequal": ((1, 9, 3), 2),
    "fewer shards than readers": ((7, 4), 3),
    "an empty shard": ((0, 4), 2),
}


@pytest.mark.parametrize(("sizes", "readers"), READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("shuffled_by", [None, (3, 1)], ids=["stored", "shuffled"])
def test_readers_together_read_every_sample_once(sizes, readers, shuffled_by):
    found = []
    for reader in range(readers):
        found += numbers(read_part(Numbers(sizes), reader, readers, shuffled_by))
    assert sorted(found) == list(range(sum(sizes)))


def test_one_reader_keeps_the_stored_order():
    assert numbers(read_part(Numbers((3, 2)), 0, 1)) == [0, 1, 2, 3, 4]


def test_the_order_follows_from_the_position():
    shards = Numbers((20, 20))
    first = numbers(read_part(shards, 0, 1, (1, 2)))
    assert numbers(read_part(shards, 0, 1, (1, 2))) == first
    assert numbers(read_part(shards, 0, 1, (1, 3))) != first
    assert first != sorted(first)


@pytest.mark.parametrize("window", [1, 4, 100])
def test_shuffling_gives_every_sample_once(monkeypatch, window):
    monkeypatch.setattr(module, "SHUFFLED_SAMPLES", window)
    found = numbers(shuffled(Numbers((30,)).read(0), rng_at(0)))
    assert Counter(found) == Counter(range(30))
    # A sample comes no earlier than the window allows.
    assert all(number <= place + window for place, number in enumerate(found))


def shard_of(path, *samples) -> WebDatasetShards:
    with tarfile.open(path, "w") as tar:
        for number, files in enumerate(samples):
            write_sample(tar, f"{number:04d}", **files)
    return WebDatasetShards([str(path)])


def test_a_sample_is_the_files_of_one_name(tmp_path):
    shards = shard_of(tmp_path / "s.tar", {"png": b"p", "cls": b"3"}, {"cls": b" 4\n", "txt": b"t", "tif": b"i"})
    found = list(shards.read(0))
    assert [(sample.label, sample.content, sample.mistake) for sample in found] == [(3, b"p", ""), (4, b"i", "")]
    assert found[0].name == f"0000 of {tmp_path / 's.tar'}"


def test_a_jpeg_comes_before_other_images_of_a_sample(tmp_path):
    (sample,) = shard_of(tmp_path / "s.tar", {"bmp": b"b", "png": b"p", "jpg": b"j", "cls": b"0"}).read(0)
    assert sample.content == b"j"


def test_a_sample_without_an_image_has_no_content(tmp_path):
    (sample,) = shard_of(tmp_path / "s.tar", {"npy": b"n", "cls": b"0"}).read(0)
    assert (sample.content, sample.mistake) == (None, "")


UNLABELLED = {"no label": {"png": b"p"}, "a word": {"png": b"p", "cls": b"cat"}}


@pytest.mark.parametrize("files", UNLABELLED.values(), ids=UNLABELLED.keys())
def test_a_sample_without_a_number_as_label_is_a_mistake(tmp_path, files):
    (sample,) = shard_of(tmp_path / "s.tar", files).read(0)
    assert sample.mistake.endswith(
        "s.tar has no label; it must have a file .cls with a number, or with a name that data.classes lists"
    )


def test_a_label_may_be_a_field_of_the_json(tmp_path):
    shard_of(tmp_path / "s.tar", {"png": b"p", "json": b'{"y": 5}'}, {"png": b"p", "json": b"{}"})
    found = list(WebDatasetShards([str(tmp_path / "s.tar")], label_key="y").read(0))
    assert found[0].label == 5
    assert found[1].mistake.endswith(
        "it must have the field 'y' of its json with a number, or with a name that data.classes lists"
    )


def test_a_label_may_be_a_name_where_names_are_known(tmp_path):
    shard_of(
        tmp_path / "s.tar",
        {"png": b"p", "cls": b"dog\n", "json": b'{"y": "cat"}'},
        {"png": b"p", "cls": b"1", "json": b'{"y": 0}'},
        {"png": b"p", "cls": b"dgo", "json": b'{"y": [1]}'},
    )
    urls = [str(tmp_path / "s.tar")]
    by_cls = list(WebDatasetShards(urls, classes=["cat", "dog"]).read(0))
    assert [sample.label for sample in by_cls[:2]] == [1, 1]
    assert by_cls[2].mistake.endswith("is of the class 'dgo', which the network does not know; did you mean dog?")
    by_json = list(WebDatasetShards(urls, label_key="y", classes=["cat", "dog"]).read(0))
    assert [sample.label for sample in by_json[:2]] == [0, 0]
    assert "has no label" in by_json[2].mistake


def test_a_damaged_shard_is_told_and_gives_no_shorter_set(tmp_path):
    shards = shard_of(tmp_path / "s.tar", *[{"png": b"p" * 2000, "cls": b"1"}] * 5)
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:5000])
    *samples, last = shards.read(0)
    assert all(not sample.mistake for sample in samples)
    assert last.mistake == f"the shard {tmp_path / 's.tar'} cannot be read to its end (unexpected end of data)"


def test_a_shard_that_is_gone_is_told():
    (sample,) = WebDatasetShards(["/nowhere/s.tar"]).read(0)
    assert sample.mistake == "the shard /nowhere/s.tar cannot be read to its end (No such file or directory)"


def test_compressed_shards_are_read(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        write_sample(tar, "0", png=b"p", cls=b"1")
    (tmp_path / "s.tar.gz").write_bytes(content.getvalue())
    (sample,) = WebDatasetShards([str(tmp_path / "s.tar.gz")]).read(0)
    assert sample.content == b"p"
