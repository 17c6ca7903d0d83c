"""Data sets of the Hugging Face hub, in any order or streaming; needs the package ``datasets``."""

import importlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from micronet_cli.data.images import read_image
from micronet_cli.data.shards import RawSample


def open_hub(dataset: str, split: str, cache: str, streaming: bool) -> tuple[Any, str, str]:
    """A split with its images undecoded, and the names of the columns of images and labels.

    Args:
        dataset: its name on the hub, or a directory.
        split: its name there.
        cache: directory of what was downloaded.
        streaming: read it in order, without downloading it first.
    """
    library = importlib.import_module("datasets")
    rows = library.load_dataset(dataset, split=split, cache_dir=cache, streaming=streaming)
    features = rows.features or {}
    image = _column(features, library.Image, "image")
    label = _column(features, library.ClassLabel, "label")
    return rows.cast_column(image, library.Image(decode=False)), image, label


def _column(features: Mapping[str, Any], kind: type, usual: str) -> str:
    """The column of the usual name, or the first one of that kind."""
    if usual in features:
        return usual
    of_kind = [name for name, feature in features.items() if isinstance(feature, kind)]
    return of_kind[0] if of_kind else usual


def _content(image: Mapping[str, Any]) -> bytes:
    """The bytes of an undecoded image."""
    if image["bytes"]:
        return image["bytes"]
    with open(image["path"], "rb") as file:
        return file.read()


class HubSource:
    """A split whose rows are read in any order."""

    def __init__(self, dataset: str, split: str, cache: str) -> None:
        self.split = split
        self.rows, self.image, label = open_hub(dataset, split, cache, streaming=False)
        values = self.rows.select_columns([label])[:][label]
        known = [-1 if value is None else value for value in values]
        self.labels = np.asarray(known, dtype=np.int64)

    def read(self, index: int) -> Image.Image:
        """The image of a row."""
        content = _content(self.rows[index][self.image])
        return read_image(io.BytesIO(content))

    def name(self, index: int) -> str:
        """The row's number."""
        return f"row {index} of {self.split}"


class HubShards:
    """A split that is read in order, shard after shard."""

    def __init__(self, dataset: str, split: str, cache: str) -> None:
        self.split = split
        self.rows, self.image, self.label = open_hub(dataset, split, cache, streaming=True)
        self.count = self.rows.num_shards

    def read(self, shard: int) -> Iterator[RawSample]:
        """The rows of a shard; one that cannot be read ends with a sample that says so."""
        part = self.rows.shard(num_shards=self.count, index=shard)
        name = f"shard {shard} of {self.split}"
        try:
            for number, row in enumerate(part):
                label = -1 if row[self.label] is None else row[self.label]
                yield RawSample(f"row {number} of {name}", label, _content(row[self.image]))
        except Exception as error:  # every backend has errors of its own
            reason = str(error).partition("\n")[0]
            yield RawSample(name, 0, None, mistake=f"{name} cannot be read to its end ({reason})")
