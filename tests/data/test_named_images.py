"""Guards that images have names and pictures where they can be read again, and numbers where they cannot."""

from micronet_cli.data import named_images as module
from micronet_cli.data.named_images import NumberedImages, named_images


class Stream:
    """Batches without names."""


class Folder(Stream):
    """Batches with names."""

    def visited(self, images):
        return list(range(images))

    def name(self, index):
        return f"{index}.jpg"

    def picture(self, index):
        return None


def test_images_with_names_are_taken_as_they_are():
    folder = Folder()
    assert named_images(folder) is folder


def test_images_without_names_are_numbered():
    images = named_images(Stream())
    assert isinstance(images, NumberedImages)
    assert images.visited(3) == [0, 1, 2]
    assert images.name(2) == "image 2"
    assert images.picture(2) is None


def test_processes_number_images_by_turns(monkeypatch):
    monkeypatch.setattr(module, "rank", lambda: 1)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    assert NumberedImages().visited(3) == [1, 3, 5]
