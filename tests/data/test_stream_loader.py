"""Streams have the members of every loader: any batch again, some, a count, and each image once."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from micronet_cli.data import base_loader, stream_loader
from micronet_cli.data.augment import Augmentation
from micronet_cli.data.base_loader import LoaderSettings
from micronet_cli.data.shards import WebDatasetShards
from micronet_cli.data.stream_loader import StreamLoader
from micronet_cli.errors import UserError
from tests.data.shard_files import write_digit_shards, write_sample
from tests.data.test_loader import CPU, SPEC, batches, same

pytest.importorskip("webdataset", reason="the extra data is not installed")
PLAIN = Augmentation()


@pytest.fixture
def digits(tmp_path):
    """Two shards of 20 digits each, and their labels."""
    labels = write_digit_shards(tmp_path, images=20)
    return [str(tmp_path / f"part-{number}.tar") for number in range(2)], labels


def stream(urls, training=False, workers=0, augmentation=PLAIN, **options) -> StreamLoader:
    settings = LoaderSettings(batch_size=6, workers=workers, seed=3, augmentation=augmentation, max_corrupt=2)
    members = {"known_total": 40 if training else None} | options
    return StreamLoader(
        shards=WebDatasetShards(urls),
        spec=SPEC,
        settings=settings,
        training=training,
        device=CPU,
        classes=10,
        where="data.train",
        **members,
    )


def labels_of(loader, **options) -> list[int]:
    return torch.cat([labels for _, labels in batches(loader, **options)]).tolist()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_evaluation_sees_every_image_once(digits, workers):
    urls, labels = digits
    loader = stream(urls, workers=workers)
    assert sorted(labels_of(loader)) == sorted(labels)
    assert (loader.images, len(loader)) == (40, 7)


def test_one_process_keeps_the_stored_order(digits):
    urls, labels = digits
    assert labels_of(stream(urls)) == labels


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["crop_flip", "imagenet"])
def test_any_training_batch_can_be_made_again(digits, workers, kind):
    loader = stream(digits[0], training=True, workers=workers, augmentation=Augmentation(kind))
    whole = batches(loader, epoch=1)
    assert len(whole) == len(loader) == 6
    for first in (1, 3):
        assert same(whole[first:], batches(loader, epoch=1, first=first))
    assert not same(whole, batches(loader, epoch=2))


def test_an_epoch_of_training_visits_other_images_in_every_batch(digits):
    urls, labels = digits
    found = labels_of(stream(urls, training=True))
    assert len(found) == 36
    assert all(found.count(label) <= labels.count(label) for label in set(found))


def test_a_split_of_less_than_a_batch_is_repeated_to_a_full_one(digits):
    loader = stream(digits[0][:1], training=True, known_total=4)
    assert [len(labels) for _, labels in batches(loader)] == [6]


def test_global_random_state_is_left_alone(digits):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    batches(stream(digits[0], training=True, augmentation=Augmentation("imagenet")))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize("images", [1, 7, 39])
def test_some_images_lie_at_equal_distances(digits, images):
    urls, labels = digits
    few = stream(urls, workers=2).some(images)
    found = labels_of(few)
    assert len(found) == few.images == images
    chosen = [-(-(number + 1) * 40 // images) - 1 for number in range(images)]
    assert found == [labels[place] for place in chosen]


def test_some_of_fewer_images_are_all(digits):
    urls, labels = digits
    assert labels_of(stream(urls).some(1000)) == labels


def test_a_sample_is_drawn_by_the_seed(digits):
    urls, labels = digits
    loader = stream(urls, at_most=15, workers=2)
    assert loader.images == 15
    assert len(labels_of(loader)) == 15
    assert same(batches(loader), batches(loader))
    assert labels_of(loader) != labels[:15]
    assert len(labels_of(stream(urls, at_most=100))) == 40


def test_processes_share_the_images(digits, monkeypatch):
    urls, labels = digits
    parts = []
    for rank in range(2):
        for module in (base_loader, stream_loader):
            monkeypatch.setattr(module, "world_size", lambda: 2)
            monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        parts += labels_of(stream(urls))
        training = batches(stream(urls, training=True))
        assert [len(labels) for _, labels in training] == [3] * 6
    assert sorted(parts) == sorted(labels)


def shard_with(path, image: bytes, label: bytes, count=4) -> list[str]:
    """A shard of one digit, the given sample, and more digits."""
    good = io.BytesIO()
    Image.new("L", (8, 8), 99).save(good, "PNG")
    with tarfile.open(path, "w") as tar:
        write_sample(tar, "0000", png=good.getvalue(), cls=b"1")
        if count > 1:
            write_sample(tar, "0001", png=image, cls=label)
        for number in range(2, count):
            write_sample(tar, f"{number:04d}", png=good.getvalue(), cls=b"2")
    return [str(path)]


def png(values: np.ndarray, image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, image_format)
    return file.getvalue()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("label", [b"10", b"-1"])
def test_a_label_out_of_range_names_the_sample_and_the_range(tmp_path, workers, label):
    urls = shard_with(tmp_path / "s.tar", png(np.zeros((8, 8), np.uint8)), label)
    with pytest.raises(UserError) as caught:
        batches(stream(urls, workers=workers))
    assert str(caught.value) == (
        f"data.train: 0001 of {urls[0]} has the label {label.decode()}; "
        "with 10 classes labels must be whole numbers from 0 to 9"
    )


def test_sixteen_bits_are_those_of_the_eight_bit_twin(tmp_path):
    shades = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    deep, plain = (
        shard_with(tmp_path / f"{name}.tar", png(values), b"3")
        for name, values in (("deep", shades.astype(np.uint16) * 257), ("plain", shades))
    )
    assert same(batches(stream(deep)), batches(stream(plain)))


def test_values_without_a_range_are_refused_by_name(tmp_path):
    urls = shard_with(tmp_path / "s.tar", png(np.zeros((8, 8), np.float32), "TIFF"), b"3")
    with pytest.raises(UserError, match=r"^data\.train: 0001 of .*: it holds floating-point numbers"):
        batches(stream(urls))


def test_corrupt_images_are_counted_and_named(tmp_path):
    loader = stream(shard_with(tmp_path / "s.tar", b"no image", b"3"))
    assert labels_of(loader) == [1, 2, 2]
    assert loader.corrupt == [f"0001 of {tmp_path / 's.tar'}"]


def test_a_shard_cut_off_ends_the_run(tmp_path):
    urls = shard_with(tmp_path / "s.tar", png(np.zeros((8, 8), np.uint8)), b"3", count=20)
    content = (tmp_path / "s.tar").read_bytes()
    in_an_image = 20 * 1024 + 512 + 40
    (tmp_path / "s.tar").write_bytes(content[:in_an_image])
    with pytest.raises(UserError, match=r"^data\.train: the shard .* cannot be read to its end \(unexpected end"):
        batches(stream(urls))


def test_too_few_images_for_the_processes_are_an_error(tmp_path):
    urls = shard_with(tmp_path / "s.tar", png(np.zeros((8, 8), np.uint8)), b"3", count=1)
    with pytest.raises(UserError, match=r"too few images for 2 processes that read them; lower data\.workers"):
        batches(stream(urls, training=True, workers=2))
