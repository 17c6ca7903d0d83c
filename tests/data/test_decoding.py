"""Decoding: pixels where a file decodes, its name where it does not, random choices by position."""

import numpy as np
import pytest
import torch
from PIL import Image

from micronet_cli.data.decoding import Decoded, DecodedSource, Decoder, collate
from micronet_cli.data.images import UnusableImage
from micronet_cli.data.sources import ArraySource


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def shifted_at_random(image: Image.Image) -> np.ndarray:
    return as_array(image) + np.uint8(np.random.randint(100))


def decoded_source(source, transform=as_array, seed=0, random=False) -> DecodedSource:
    return DecodedSource(source, Decoder(transform, channels=3, seed=seed, random=random))


@pytest.fixture
def source():
    pixels = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    return ArraySource(pixels, [7, 5])


def test_a_decoded_image_has_its_channels_last(source):
    decoded = decoded_source(source)[0, 1]
    assert (decoded.pixels == source.images[1]).all()
    assert (decoded.label, decoded.name) == (5, "")


def test_a_file_that_does_not_decode_is_named(source, monkeypatch):
    def broken(index):
        raise OSError(index)

    monkeypatch.setattr(source, "read", broken)
    decoded = decoded_source(source)[0, 1]
    assert decoded.pixels is None
    assert decoded.name == "image 1"


def test_a_file_that_no_network_takes_is_a_mistake_with_its_name(source, monkeypatch):
    def unusable(index):
        raise UnusableImage("it holds text")

    monkeypatch.setattr(source, "read", unusable)
    decoded = decoded_source(source)[0, 1]
    assert decoded.pixels is None
    assert decoded.mistake == "image 1: it holds text"


def test_a_programming_error_is_not_taken_for_a_corrupt_file(source, monkeypatch):
    monkeypatch.setattr(source, "read", lambda index: None.no_such_attribute)
    with pytest.raises(AttributeError):
        decoded_source(source)[0, 1]


def test_random_choices_follow_from_seed_epoch_and_index(source):
    decoder = decoded_source(source, shifted_at_random, seed=3, random=True)
    state = np.random.get_state()[1].copy()
    first = decoder[1, 0].pixels
    assert (decoder[1, 0].pixels == first).all()
    other_seed = decoded_source(source, shifted_at_random, seed=4, random=True)
    others = [decoder[2, 0].pixels, other_seed[1, 0].pixels]
    assert all((other != first).any() for other in others)
    assert (np.random.get_state()[1] == state).all()


def test_collating_keeps_the_places_of_what_decodes():
    image = np.zeros((2, 2, 3), np.uint8)
    mistaken = Decoded(None, 0, "odd.png", mistake="odd.png: no")
    batch = collate([Decoded(image, 4), Decoded(None, 1, "bad.png"), Decoded(image + 1, 6), mistaken])
    assert batch.images.shape == (2, 2, 2, 3)
    assert batch.labels.tolist() == [4, 6]
    assert batch.labels.dtype == torch.int64
    assert list(batch.places) == [0, 2]
    assert list(batch.corrupt) == ["bad.png"]
    assert list(batch.mistakes) == ["odd.png: no"]


def test_a_batch_of_which_nothing_decodes_is_empty():
    batch = collate([Decoded(None, 1, "bad.png")])
    assert (len(batch.images), len(batch.labels), list(batch.places)) == (0, 0, [])
