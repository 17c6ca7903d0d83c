"""Data that comes in shards or from a hub: WebDataset tars and Hugging Face data sets, by timm's names for them."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from timm.data.readers import create_reader

from micronet_cli.data.augment import Augment
from micronet_cli.data.base import Data
from micronet_cli.data.class_names import are_numbers, numbered
from micronet_cli.data.hub import HubShards, HubSource
from micronet_cli.data.protocol import Batches
from micronet_cli.data.shards import Shards, WebDatasetShards
from micronet_cli.data.sources import Source, relabelled
from micronet_cli.data.stream_loader import StreamLoader
from micronet_cli.errors import UserError
from micronet_cli.models.model import InputSpec

IMAGENET_CLASSES = 1000
# It warns of every directory of shards without an _info.json, which none needs.
logging.getLogger("timm.data.readers.reader_wds").setLevel(logging.ERROR)


@dataclass(kw_only=True)
class TimmStream(Data):
    """A data set by timm's name for it.

    Attributes:
        dataset: ``wds/`` for WebDataset shards; ``hfds/<name>`` or, streaming, ``hfids/<name>`` for Hugging Face's.
        root: directory of the shards, or of the hub's cache.
        train, val, test: split names; for WebDataset shard patterns, as ``train-{0000..0099}.tar``. Of ``hfds/`` a
            seeded part of train is held out without ``val``.
        samples: images in a split, by its name above; training on a stream needs it.
        num_classes: classes of the labels ``0 .. num_classes - 1``; null: as many as ``classes`` lists, without it the
            1,000 of ImageNet.
    """

    dataset: str
    root: str
    train: str | None = None
    val: str | None = None
    test: str | None = None
    samples: dict[str, int] = field(default_factory=dict)
    num_classes: int | None = None
    augment: Augment = "imagenet"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._kind not in ("wds", "hfds", "hfids"):
            raise ValueError(f"dataset={self.dataset!r}: must be wds/, hfds/<name> or hfids/<name>")
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"num_classes={self.num_classes}: must be at least 1")

    @property
    def _kind(self) -> str:
        kind, _, _ = self.dataset.partition("/")
        return kind.lower()

    @property
    def _name(self) -> str:
        _, _, name = self.dataset.partition("/")
        return name

    @property
    def _streams(self) -> bool:
        """Whether images come in order only."""
        return self._kind != "hfds"

    def problems(self, splits: Sequence[str]) -> list[str]:
        """Splits that are not given."""
        needed = dict.fromkeys(self._given(split) for split in splits)
        missing = [split for split in needed if getattr(self, split) is None]
        return [f"data.{split}: missing; give data.{split}=<split or shards>" for split in missing]

    def _given(self, split: str) -> str:
        """The split that images come from: train's where val is held out of it."""
        held_out = split == "val" and self.val is None and not self._streams
        return "train" if held_out else split

    @property
    def own_class_names(self) -> list[str]:
        """The labels as text: streams do not tell names."""
        return numbered(self.num_classes or IMAGENET_CLASSES)

    @property
    def class_names(self) -> list[str]:
        """Those that ``classes`` lists, else the labels as text.

        Raises:
            UserError: they are not as many as ``num_classes``.
        """
        names = super().class_names
        if self.num_classes not in (None, len(names)):
            raise UserError(
                f"data.num_classes={self.num_classes}: data.classes={self.classes!r} lists {len(names)}; leave it null"
            )
        return names

    def labelled(self, split: str, classes: Sequence[str] | None = None) -> Source:
        """The images of a split of ``hfds/``, labelled by the outputs of a network.

        Labels are outputs, unless the split tells their names and the network has names too.
        """
        names = classes or self.class_names
        source = self.source(split)
        own = self._sources[self._given(split)].table.names
        if own is None or are_numbers(names):
            return source
        return relabelled(source, own, names, self._where(split))

    def source(self, split: str) -> Source:
        """The images of a split of ``hfds/``."""
        self._require(split)
        given = self._given(split)
        if given not in self._sources:
            with self._opening(given) as name:
                self._sources[given] = HubSource(self._name, name, self.root)
        whole = self._sources[given]
        is_whole = split == "test" or self.val is not None
        return whole if is_whole else self._part(whole, split)

    @cached_property
    def _sources(self) -> dict[str, HubSource]:
        return {}

    def _require(self, split: str) -> None:
        problems = self.problems([split])
        if problems:
            raise UserError(problems[0])

    @contextmanager
    def _opening(self, split: str) -> Iterator[str]:
        """The split's name in the data set; what goes wrong in the block is told under its key."""
        name = getattr(self, split)
        try:
            yield name
        except UserError:
            raise
        except ImportError as error:
            raise UserError(
                f"data.dataset={self.dataset!r}: it needs the package {error.name}; pip install {error.name}"
            ) from None
        except Exception as error:  # every backend has errors of its own
            lines = str(error).splitlines() or [type(error).__name__]
            raise UserError(f"data.{split}={name!r}: {self.dataset} does not open it ({lines[0]})") from None

    def loader(
        self,
        split: str,
        spec: InputSpec,
        device: torch.device,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> Batches:
        """Batches of a split, shuffled and augmented for ``train``.

        Raises:
            UserError: the split cannot be opened.
        """
        if not self._streams:
            return super().loader(split, spec, device, seed, classes)
        return self._stream_loader(split, spec, device, seed, classes or self.class_names)

    def sample(
        self,
        split: str,
        images: int,
        spec: InputSpec,
        device: torch.device,
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ) -> Batches:
        """Batches of at most so many images of a split, as evaluation sees them.

        Those of a stream are its first ones, in an order drawn by ``seed``.
        """
        if not self._streams:
            return super().sample(split, images, spec, device, seed, classes)
        return self._stream_loader(split, spec, device, seed, classes or self.class_names, at_most=images)

    def _stream_loader(
        self,
        split: str,
        spec: InputSpec,
        device: torch.device,
        seed: int,
        classes: Sequence[str],
        at_most: int | None = None,
    ) -> StreamLoader:
        self._require(split)
        training = split == "train" and at_most is None
        names = None if are_numbers(classes) else classes
        with self._opening(split) as name:
            if self._kind == "wds":
                shards, total = self._web_dataset(name, names)
            else:
                shards, total = HubShards(self._name, name, self.root, names), None
        total = self.samples.get(split, total)
        if training and not total:
            raise UserError(f"data.samples.{split}: missing; training on a stream needs the number of its images")
        return StreamLoader(
            shards=shards,
            known_total=total,
            at_most=at_most,
            spec=spec,
            settings=self.loader_settings(training, seed, spec, device),
            training=training,
            device=device,
            classes=len(classes),
            where=f"data.{split}",
        )

    def _web_dataset(self, name: str, classes: Sequence[str] | None) -> tuple[Shards, int | None]:
        """The shards of a pattern, or of a split that ``_info.json`` describes, and the number of their images."""
        known = create_reader("wds/", root=self.root, split=name).split_info
        urls = [os.path.join(self.root, file) for file in known.filenames]
        for url in urls:
            is_file = not url.startswith("pipe:") and "://" not in url
            if is_file and not os.path.isfile(url):
                raise FileNotFoundError(f"no such shard: {url}")
        return WebDatasetShards(urls, known.alt_label, classes), known.num_samples or None
