"""Batches of shards, which are read in order: the same members as ``data.loader.Loader`` has.

The order and every random choice follow from the seed, the epoch and the number of decoding processes: with as many of
them a resumed run sees the very batches that an uninterrupted one would have seen.
"""

import copy
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from micronet_cli.data.base_loader import BaseLoader
from micronet_cli.data.decoding import Decoded, DecodedBatch, Decoder, collate, label_mistake
from micronet_cli.data.images import read_image
from micronet_cli.data.randomness import Position
from micronet_cli.data.shards import RawSample, Shards, read_part
from micronet_cli.distributed import rank, world_size


@dataclass(frozen=True)
class Visit:
    """Which samples an epoch visits.

    Attributes:
        total: samples of all shards, where ``some`` or ``repeated`` need to know; else 0.
        some: so many of them, at equal distances; None: all.
        at_most: it ends after so many.
        shuffled_by: position that decides the order; None: as they are stored.
        repeated: begin again where the shards end.
    """

    total: int = 0
    some: int | None = None
    at_most: int | None = None
    shuffled_by: Position | None = None
    repeated: bool = False

    def samples(self, shards: Shards, reader: int, readers: int) -> Iterator[RawSample]:
        """One reader's part."""
        if self.repeated:
            return self._rounds(shards, reader, readers)
        samples = read_part(shards, reader, readers, self.shuffled_by)
        if self.some is not None:
            samples = (sample for number, sample in enumerate(samples) if self._is_chosen(number))
        if self.at_most is not None:
            samples = islice(samples, -(-self.at_most // readers))
        return samples

    def _is_chosen(self, number: int) -> bool:
        """Whether a step of ``total / some`` samples ends with this one."""
        assert self.some is not None
        before = number * self.some // self.total
        after = (number + 1) * self.some // self.total
        return after > before

    def _rounds(self, shards: Shards, reader: int, readers: int) -> Iterator[RawSample]:
        assert self.shuffled_by is not None
        for number in count():
            found = 0
            for sample in read_part(shards, reader, readers, (*self.shuffled_by, number)):
                found += 1
                yield sample
            if found == 0:
                mistake = f"too few images for {readers} processes that read them; lower data.workers"
                yield RawSample("", 0, None, mistake=mistake)
                return


@dataclass(eq=False)
class DecodedShards(IterableDataset):
    """The decoded samples of one epoch, from a batch on.

    Attributes:
        shards: where they come from.
        decoder: from a file to the network's input.
        classes: number of them; labels are below it.
        visit: which samples, in which order.
        batch: samples a batch, of this process alone.
        epoch: part of each image's random position.
        first: the number of the batch to begin with.
        batches: where the epoch ends; None: with the shards.
        rank, world_size: this process among those that share the shards.
    """

    shards: Shards
    decoder: Decoder
    classes: int
    visit: Visit
    batch: int
    epoch: int
    first: int
    batches: int | None
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[Decoded]:
        worker = get_worker_info()
        number_of_worker = worker.id if worker else 0
        workers = worker.num_workers if worker else 1
        # PyTorch takes batches from the workers in turn, beginning with the first one. The batch that the epoch goes on
        # with may be another's, whose part is then read by this worker.
        part = (self.first + number_of_worker) % workers
        reader = self.rank * workers + part
        samples = self.visit.samples(self.shards, reader, self.world_size * workers)

        skipped_batches = len(range(part, self.first, workers))
        begin = skipped_batches * self.batch
        end = None
        if self.batches is not None:
            own_batches = len(range(part, self.batches, workers))
            end = own_batches * self.batch
        for number, sample in islice(enumerate(samples), begin, end):
            yield self._decoded(sample, (self.epoch, reader, number))

    def _decoded(self, sample: RawSample, position: Position) -> Decoded:
        if sample.mistake:
            return Decoded(None, 0, sample.name, sample.mistake)
        label = sample.label
        if not 0 <= label < self.classes:
            mistake = label_mistake(sample.name, label, self.classes)
            return Decoded(None, label, sample.name, mistake)
        if sample.content is None:
            return Decoded(None, label, sample.name)
        file = io.BytesIO(sample.content)
        return self.decoder.decode(lambda: read_image(file), label, sample.name, position)


@dataclass(kw_only=True)
class StreamLoader(BaseLoader):
    """Batches of shards.

    Attributes:
        shards: where the images come from.
        known_total: images of all shards; None: they are counted where that matters.
        at_most: take so many, drawn by the seed; None: all.
        chosen: take so many, at equal distances; None: all.
    """

    shards: Shards
    known_total: int | None = None
    at_most: int | None = None
    chosen: int | None = None

    @cached_property
    def total(self) -> int:
        """Images of all shards."""
        if self.known_total is not None:
            return self.known_total
        return sum(1 for _ in read_part(self.shards, 0, 1))

    @property
    def images(self) -> int:
        """Images an epoch."""
        images = self.total
        for limit in (self.at_most, self.chosen):
            if limit is not None:
                images = min(images, limit)
        return images

    def some(self, images: int) -> "StreamLoader":
        """A loader of so many of these images (or all), at equal distances."""
        few = copy.copy(self)
        few.chosen = images if images < self.images else None
        return few

    def fetch(self, epoch: int, first: int) -> Iterator[DecodedBatch]:
        """The decoded images of this process's part of every batch from number ``first`` on."""
        own_batch = max(1, self.batch_size // world_size())
        batches = len(self) if self.training else None
        decoded = DecodedShards(
            shards=self.shards,
            decoder=self.decoder,
            classes=self.classes,
            visit=self._visit(epoch),
            batch=own_batch,
            epoch=epoch,
            first=first,
            batches=batches,
            rank=rank(),
            world_size=world_size(),
        )
        yield from DataLoader(
            decoded,
            batch_size=own_batch,
            num_workers=self._workers(),
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the global one
        )

    def _visit(self, epoch: int) -> Visit:
        seed = self.settings.seed
        if self.training:
            return Visit(shuffled_by=(seed, epoch), repeated=True)
        if self.at_most is not None:
            return Visit(at_most=self.at_most, shuffled_by=(seed,))
        if self.chosen is not None:
            return Visit(total=self.total, some=self.chosen)
        return Visit()

    def _workers(self) -> int:
        workers = 1 if self.settings.workers is None else self.settings.workers
        # A few images are found by one process, so that they are as many as they should be.
        is_part = self.at_most is not None or self.chosen is not None
        return min(workers, 1) if is_part else workers
