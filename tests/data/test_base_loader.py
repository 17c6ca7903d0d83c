"""All loaders: channels that image files have, statistics of as many, and what ends a run by name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from micronet_cli.data.augment import Augmentation
from micronet_cli.data.base_loader import LoaderSettings, check_channels
from micronet_cli.data.datasets import Cifar, Digits, ImageFolder
from micronet_cli.data.loader import Loader
from micronet_cli.data.sources import ArraySource
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec
from tests.data.test_loader import CPU, batches

GREY = InputSpec((1, 8, 8), (0.5,), (0.25,))
RGBA = InputSpec((4, 8, 8), (0.5,) * 4, (0.25,) * 4)


@pytest.fixture
def transparent(tmp_path):
    """RGBA images of 2 classes, 8 x 8."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "rgba" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)
            Image.fromarray(pixels, "RGBA").save(tmp_path / "rgba" / name / f"{number}.png")
    return tmp_path / "rgba"


def loader_of(labels, spec=GREY, **options) -> Loader:
    source = ArraySource(np.zeros((len(labels), 8, 8), np.uint8), labels)
    settings = LoaderSettings(batch_size=2, workers=0, **options)
    return Loader(source=source, spec=spec, settings=settings, training=False, device=CPU, classes=3, where="data.test")


def test_a_network_of_one_channel_gets_grey_images(image_folder):
    images, _ = next(ImageFolder(test=str(image_folder)).loader("test", GREY, CPU).batches())
    assert images.shape == (24, 1, 8, 8)
    digits, _ = next(Digits().loader("test", GREY, CPU).batches())
    colour, _ = next(Digits().loader("test", InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3), CPU).batches())
    assert torch.equal(digits, colour[:, :1])


def test_a_network_of_four_channels_gets_the_alpha_channel(transparent):
    images, _ = next(ImageFolder(test=str(transparent)).loader("test", RGBA, CPU).batches())
    first = np.asarray(Image.open(transparent / "a" / "0.png"))
    assert images.shape == (8, 4, 8, 8)
    back = images[0].mul(0.25).add(0.5).mul(255).round().to(torch.uint8).permute(1, 2, 0)
    assert (back.numpy()[..., 3] == first[..., 3]).all()


@pytest.mark.parametrize("cache_mb", [0, 100])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_the_network_cannot_take_is_named(image_folder, cache_mb, workers):
    data = ImageFolder(test=str(image_folder), cache_mb=cache_mb, workers=workers)
    with pytest.raises(UserError, match=r"^data\.test: blue/0\.jpg: it has no alpha channel .*4 channels$"):
        batches(data.loader("test", RGBA, CPU))


@pytest.mark.parametrize("workers", [0, 1])
def test_values_without_a_range_are_refused_by_file_name(image_folder, workers):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(image_folder / "blue" / "0.tif")
    data = ImageFolder(test=str(image_folder), cache_mb=0, workers=workers)
    with pytest.raises(UserError, match=r"^data\.test: blue/0\.tif: it holds floating-point numbers; convert it"):
        batches(data.loader("test", GREY, CPU))


def test_channels_that_no_file_has_are_refused_before_anything_is_read():
    with pytest.raises(UserError, match=r"^model\.args\.in_chans=5: image files have 1 \(grey\)"):
        loader_of([0], replace(GREY, size=(5, 8, 8), mean=(0.5,) * 5, std=(0.25,) * 5))


def test_a_policy_is_of_colour_images_only():
    check_channels(3, Augmentation(auto_augment="rand-m9"))
    with pytest.raises(UserError, match=r"data\.auto_augment='rand-m9': .* the network takes 1; leave it null"):
        check_channels(1, Augmentation(auto_augment="rand-m9"))


@pytest.mark.parametrize("spec", [GREY, RGBA], ids=["grey", "alpha"])
def test_augmentation_of_other_channels_than_colour(image_folder, transparent, spec):
    root = image_folder if spec is GREY else transparent
    for augment in ("crop_flip", "imagenet"):
        data = ImageFolder(train=str(root), batch_size=4, augment=augment, workers=0, mixup=0.5, random_erasing=0.5)
        images, _ = next(data.loader("train", spec, CPU).batches())
        assert images.shape == (4, *spec.size)
        assert images.isfinite().all()


OUTSIDE = {"too large": [0, 2, 3, 4], "negative": [0, 2, -1, 3], "numbered from 1": [1, 2, 3]}


@pytest.mark.parametrize("labels", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_a_label_out_of_range_names_the_first_image_and_the_range(labels):
    with pytest.raises(UserError) as caught:
        loader_of(labels)
    first = next(label for label in labels if label not in range(3))
    name = f"image {labels.index(first)}"
    text = f"data.test: {name} has the label {first}; with 3 classes labels must be whole numbers from 0 to 2"
    assert str(caught.value) == text


def test_cifar_is_read_in_grey_where_the_network_is(monkeypatch):
    archive = type("Archive", (), {"data": np.full((4, 32, 32, 3), 51, np.uint8), "targets": [0, 1, 2, 3]})
    archive.classes = list("0123456789")
    data = Cifar()
    monkeypatch.setattr(Cifar, "_read", lambda self, train: archive)
    images, _ = next(data.loader("test", GREY, CPU).batches())
    assert images.unique().tolist() == pytest.approx([(0.2 - 0.5) / 0.25])


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_the_only_image_of_a_training_batch_that_decodes_comes_twice(image_folder, mixup):
    for number in range(1, 12):
        (image_folder / "blue" / f"{number}.jpg").write_bytes(b"no image")
    data = ImageFolder(train=str(image_folder), val=str(image_folder), batch_size=12, workers=0, cache_mb=0)
    data = replace(data, augment="none", max_corrupt=100, mixup=mixup)
    loader = data.loader("train", InputSpec((3, 8, 8), (0.5,) * 3, (0.25,) * 3), CPU)
    loader.indices = np.arange(12)  # the blue ones
    ((images, labels),) = batches(loader)
    assert len(images) == len(labels) == 2
    assert torch.allclose(images[0], images[1])
    assert torch.allclose(labels[0], labels[1])
