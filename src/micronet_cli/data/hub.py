"""Data sets of the Hugging Face hub, in any order or streaming; needs the package ``datasets``."""

import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from micronet_cli.data.class_names import UNKNOWN, outputs_of, unknown_class
from micronet_cli.data.images import read_image
from micronet_cli.data.shards import RawSample

# What stands for a label that a row does not have: it is out of every range.
NO_LABEL = -1


@dataclass(frozen=True)
class Table:
    """A split as the package gives it.

    Attributes:
        rows: its data set; images are not decoded.
        image: name of the column of images.
        label: name of the column of class indices.
        names: of the classes; None where the column does not tell them.
    """

    rows: Any
    image: str
    label: str
    names: list[str] | None

    def content(self, row: Mapping[str, Any]) -> bytes:
        """The image file of a row."""
        image = row[self.image]
        if image["bytes"]:
            return image["bytes"]
        return Path(image["path"]).read_bytes()


def open_table(dataset: str, split: str, cache: str, streaming: bool) -> Table:
    """A split of a data set.

    Args:
        dataset: its name on the hub, or a directory.
        split: its name there.
        cache: directory of what was downloaded.
        streaming: read it in order, without downloading it first.
    """
    library = importlib.import_module("datasets")
    rows = library.load_dataset(
        dataset,
        split=split,
        cache_dir=cache,
        streaming=streaming,
    )
    features = rows.features or {}
    image = _column(features, library.Image, usual="image")
    label = _column(features, library.ClassLabel, usual="label")
    undecoded = rows.cast_column(image, library.Image(decode=False))
    names = getattr(features.get(label), "names", None)
    return Table(undecoded, image, label, names)


def _column(features: Mapping[str, Any], kind: type, usual: str) -> str:
    """The column of the usual name, or the first one of that kind."""
    if usual in features:
        return usual
    for name, feature in features.items():
        if isinstance(feature, kind):
            return name
    return usual


class HubSource:
    """A split whose rows are read in any order."""

    def __init__(self, dataset: str, split: str, cache: str) -> None:
        self.split = split
        self.table = open_table(dataset, split, cache, streaming=False)
        column = self.table.label
        labels = self.table.rows.select_columns([column])[:][column]
        known = [NO_LABEL if label is None else label for label in labels]
        self.labels = np.asarray(known, dtype=np.int64)

    def read(self, index: int) -> Image.Image:
        """The image of a row."""
        row = self.table.rows[index]
        content = self.table.content(row)
        return read_image(io.BytesIO(content))

    def name(self, index: int) -> str:
        """The row's number."""
        return f"row {index} of {self.split}"


class HubShards:
    """A split that is read in order, shard after shard.

    Args:
        dataset, split, cache: as of ``open_table``.
        classes: class names in the order of a network's outputs; None: labels are outputs, whatever they are called.
    """

    def __init__(self, dataset: str, split: str, cache: str, classes: Sequence[str] | None = None) -> None:
        self.split = split
        self.table = open_table(dataset, split, cache, streaming=True)
        self.count = self.table.rows.num_shards
        self.classes = classes or []
        self._own_names: list[str] = []  # where labels are to be translated
        if classes and self.table.names:
            self._own_names = self.table.names
        self._outputs = outputs_of(self._own_names, self.classes).tolist()

    def read(self, shard: int) -> Iterator[RawSample]:
        """The rows of a shard; one that cannot be read ends with a sample that says so."""
        rows = self.table.rows.shard(num_shards=self.count, index=shard)
        name = f"shard {shard} of {self.split}"
        try:
            for number, row in enumerate(rows):
                yield self._raw(row, f"row {number} of {name}")
        except Exception as error:  # every backend has errors of its own
            reason, _, _ = str(error).partition("\n")
            mistake = f"{name} cannot be read to its end ({reason})"
            yield RawSample(name, NO_LABEL, None, mistake)

    def _raw(self, row: Mapping[str, Any], name: str) -> RawSample:
        label = row[self.table.label]
        if label is None:
            label = NO_LABEL
        mistake = ""
        if 0 <= label < len(self._own_names):
            own_name = self._own_names[label]
            label = self._outputs[label]
            if label == UNKNOWN:
                mistake = unknown_class(name, own_name, self.classes)
        return RawSample(name, label, self.table.content(row), mistake)
