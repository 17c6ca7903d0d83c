"""Shards: parts of a data set that are read from their beginning to their end, and who reads which of them."""

import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import numpy as np

from micronet_cli.data.class_names import unknown_class
from micronet_cli.data.images import known_suffixes
from micronet_cli.data.randomness import Position, rng_at

# So many samples are held back, and one of them at random is given next.
SHUFFLED_SAMPLES = 2048
# Where a sample has several images, the first of these is it.
PREFERRED_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class RawSample:
    """An image that is not decoded yet.

    Attributes:
        name: what to call it in a log.
        label: class index.
        content: the image file; None where there is none.
        mistake: why the run cannot go on; empty for a sample like any other.
    """

    name: str
    label: int
    content: bytes | None
    mistake: str = ""


class Shards(Protocol):
    """A split in shards."""

    @property
    def count(self) -> int:
        """Number of shards."""
        ...

    def read(self, shard: int) -> Iterator[RawSample]:
        """What a shard holds, in its order."""
        ...


@dataclass(frozen=True)
class WebDatasetShards:
    """Tars in which files that share a name are a sample: ``0007.jpg`` and ``0007.cls``.

    Attributes:
        urls: paths, or what webdataset opens besides.
        label_key: field of ``0007.json`` that is the label; empty: ``0007.cls`` is.
        classes: class names in the order of a network's outputs, for labels that are names; a number is an output.
    """

    urls: Sequence[str]
    label_key: str = ""
    classes: Sequence[str] | None = None

    @property
    def count(self) -> int:
        """Number of tars."""
        return len(self.urls)

    def read(self, shard: int) -> Iterator[RawSample]:
        """What a tar holds, in its order; a damaged one ends with a sample that says so."""
        import webdataset

        url = self.urls[shard]
        read = webdataset.tarfile_to_samples()
        try:
            for sample in read([{"url": url}]):
                yield self._raw(sample)
        except (OSError, ValueError, EOFError, tarfile.TarError) as error:
            yield RawSample(url, 0, None, mistake=f"the shard {url} cannot be read to its end ({_reason(error)})")

    def _raw(self, sample: dict[str, Any]) -> RawSample:
        name = f"{sample['__key__']} of {sample['__url__']}"
        images = [key for key in sample if f".{key}" in known_suffixes()]
        images.sort(key=_preference)
        content = sample[images[0]] if images else None
        try:
            label = self._label(sample)
        except (KeyError, ValueError, TypeError):
            where = f"the field {self.label_key!r} of its json" if self.label_key else "a file .cls"
            must_have = f"{where} with a number, or with a name that data.classes lists"
            return RawSample(name, 0, None, mistake=f"{name} has no label; it must have {must_have}")
        if isinstance(label, int):
            return RawSample(name, label, content)
        assert self.classes is not None
        output = self._output_of.get(label)
        if output is None:
            return RawSample(name, 0, None, mistake=unknown_class(name, label, self.classes))
        return RawSample(name, output, content)

    def _label(self, sample: dict[str, Any]) -> int | str:
        """A number, or a name where names are known."""
        if self.label_key:
            fields = json.loads(sample["json"])
            found = fields[self.label_key]
        else:
            found = sample["cls"].decode()
        try:
            return int(found)
        except ValueError:
            if self.classes is None:
                raise
            return found.strip()

    @cached_property
    def _output_of(self) -> dict[str, int]:
        return {name: output for output, name in enumerate(self.classes or ())}


def _reason(error: Exception) -> str:
    """What went wrong, without what webdataset adds to it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[0]) if error.args else type(error).__name__
    reason, _, _ = text.partition(" @ ")
    return reason


def _preference(key: str) -> int:
    suffix = f".{key}"
    if suffix in PREFERRED_SUFFIXES:
        return PREFERRED_SUFFIXES.index(suffix)
    return len(PREFERRED_SUFFIXES)


def read_part(shards: Shards, reader: int, readers: int, shuffled_by: Position | None = None) -> Iterator[RawSample]:
    """What one of several readers reads: some of the shards or, where they are too few, some of the samples.

    Args:
        shards: all of them.
        reader: which one, from 0.
        readers: how many there are; together they read every sample once.
        shuffled_by: the position that decides the order; None: as it is stored.
    """
    order = np.arange(shards.count)
    if shuffled_by is not None:
        order = rng_at(*shuffled_by).permutation(shards.count)
    if shards.count >= readers:
        samples = _chained(shards, order[reader::readers])
    else:
        samples = islice(_chained(shards, order), reader, None, readers)
    if shuffled_by is None:
        return samples
    return shuffled(samples, rng_at(*shuffled_by, reader))


def _chained(shards: Shards, order: Iterable[int]) -> Iterator[RawSample]:
    for shard in order:
        yield from shards.read(int(shard))


def shuffled(samples: Iterable[RawSample], rng: np.random.Generator) -> Iterator[RawSample]:
    """The same samples in an order drawn from a window of ``SHUFFLED_SAMPLES``."""
    window: list[RawSample] = []
    for sample in samples:
        if len(window) < SHUFFLED_SAMPLES:
            window.append(sample)
            continue
        chosen = int(rng.integers(len(window)))
        yield window[chosen]
        window[chosen] = sample
    for chosen in rng.permutation(len(window)):
        yield window[chosen]
