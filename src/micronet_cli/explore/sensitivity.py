"""What it costs to prune or to quantise each layer alone."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from micronet_cli.distributed import rank, sum_over_ranks
from micronet_cli.explore.curvature import Curvature
from micronet_cli.explore.prefix import Prefix
from micronet_cli.explore.trial import ACTIVATION_BITS, SPARSITY, WEIGHT_BITS, Point, Trial
from micronet_cli.functional.divergence import divergence
from micronet_cli.functional.pruning import magnitude

log = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor]
Batches = Callable[[], Iterator[Batch]]
Row = dict[str, Any]
TITLES = {SPARSITY: "{:.4g} zeros", WEIGHT_BITS: "w{:g}", ACTIVATION_BITS: "a{:g}"}
MOST_IMAGES = 64  # of a chunk: more gain nothing on a CPU


@dataclass(frozen=True)
class Sensitivity:
    """Which points are tried, and how.

    Attributes:
        sparsities: fractions of zeros in (0, 1) of the weights.
        weight_bits, activation_bits: bits in [1, 16] of the weights and of the input.
        method: ``evaluate``: every point on every image, from the changed layer on. ``estimate``: the divergence to
            second order, without labels, at the price of a few runs of the network for all points.
        images: so many of those held back from training, at equal distances; null: all.
        importance: masked weight -> importance, larger = keep.
        memory_mb: MiB for remembered activations; decides how many images are computed together.
    """

    sparsities: list[float] = field(default_factory=lambda: [0.5, 0.75, 0.875])
    weight_bits: list[float] = field(default_factory=lambda: [2, 3, 4, 6])
    activation_bits: list[float] = field(default_factory=lambda: [3, 4, 6])
    method: Literal["evaluate", "estimate"] = "evaluate"
    images: int | None = 1024
    importance: Callable[[Tensor], Tensor] = magnitude
    memory_mb: int = 512

    def __post_init__(self) -> None:
        for sparsity in self.sparsities:
            if not 0 < sparsity < 1:
                raise ValueError(f"sparsities={self.sparsities}: must be fractions of zeros in (0, 1)")
        _check_bits("weight_bits", self.weight_bits)
        _check_bits("activation_bits", self.activation_bits)
        if not (self.sparsities or self.weight_bits or self.activation_bits):
            raise ValueError("sparsities=[]: nothing to try; give sparsities, weight_bits or activation_bits")
        if self.images is not None:
            _check_positive("images", self.images)
        _check_positive("memory_mb", self.memory_mb)

    def measure(self, model: nn.Module, batches: Batches, seed: int = 0) -> list[Row]:
        """A row for each point, in the network's order; the model is left as it was.

        Args:
            model: any classifier.
            batches: makes the batches, images ``[N, C, H, W]`` and labels ``[N]``, anew at every call.
            seed: of the estimate's random signs.

        Returns:
            ``layer kind value divergence``: mean KL divergence of the output from the unchanged network's, in nats;
            with ``evaluate`` also ``top1`` (percent), ``top1_drop`` (points) and ``loss_increase`` (nats). A layer
            that is not called as a module has no input to quantise, and no estimate; nor has one whose input does
            not depend on the images.
        """
        trial = Trial(model, self.importance)
        first, _ = next(batches())
        prefix = Prefix(trial.model, first)
        size = self._images_together(prefix.bytes_per_image)
        inputs = (images for images, _ in _chunks(batches(), size))
        count = trial.watch_inputs(inputs)
        points = trial.points(self.sparsities, self.weight_bits, self.activation_bits)
        chunks = _chunks(batches(), size)
        if self.method == "evaluate":
            timed = _with_time_left(chunks, count, len(points))
            return _evaluate(trial, prefix, points, timed)
        signs = torch.Generator().manual_seed(seed + rank())
        curvature = Curvature(trial, signs)
        able = curvature.layers(first[:1])
        points = _only_of(able, points)
        timed = _with_time_left(chunks, count, len(points))
        return _estimate(curvature, points, timed)

    def _images_together(self, bytes_per_image: int) -> int:
        """As many as the memory holds, at least one."""
        memory = self.memory_mb * 2**20
        fitting = memory // max(bytes_per_image, 1)
        fitting = min(MOST_IMAGES, fitting)
        return max(1, fitting)


def _check_bits(name: str, values: Sequence[float]) -> None:
    for bits in values:
        if not 1 <= bits <= 16:
            raise ValueError(f"{name}={values}: must be bits in [1, 16]")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}: must be at least 1")


def _only_of(layers: Collection[str], points: Sequence[Point]) -> list[Point]:
    """The points of these layers; a warning names the layers of the others."""
    kept = []
    left_out: set[str] = set()
    for point in points:
        if point.layer in layers:
            kept.append(point)
        else:
            left_out.add(point.layer)
    if left_out:
        names = ", ".join(sorted(left_out))
        log.warning("not estimated, for they are not called as modules or not on images: %s", names)
    return kept


class _Sums(NamedTuple):
    """Sums over images of a network's figures."""

    divergence: float
    hits: float
    loss: float
    images: float


def _evaluate(trial: Trial, prefix: Prefix, points: Sequence[Point], chunks: Iterable[Batch]) -> list[Row]:
    # A row of sums for each point, and one for the unchanged network.
    lines, columns = len(points) + 1, len(_Sums._fields)
    sums = torch.zeros(lines, columns, dtype=torch.float64)
    for images, labels in chunks:
        logits = prefix.record(images)
        sums[-1] += _figures(logits, logits, labels)
        for row, point in zip(sums[:-1], points, strict=True):
            with trial.changed(point):
                layer = trial.layers[point.layer]
                changed = prefix.replay(images, layer)
                row += _figures(logits, changed, labels)
    *found, last = sum_over_ranks(sums).tolist()
    unchanged = _Sums(*last)
    rows = []
    for point, values in zip(points, found, strict=True):
        changed_sums = _Sums(*values)
        rows.append(_named(point) | _compared(changed_sums, unchanged))
    return rows


def _compared(changed: _Sums, unchanged: _Sums) -> dict[str, float]:
    """What a point costs."""
    images = unchanged.images
    lost_hits = unchanged.hits - changed.hits
    added_loss = changed.loss - unchanged.loss
    return {
        "divergence": changed.divergence / images,
        "top1": 100 * changed.hits / images,
        "top1_drop": 100 * lost_hits / images,
        "loss_increase": added_loss / images,
    }


def _estimate(curvature: Curvature, points: Sequence[Point], chunks: Iterable[Batch]) -> list[Row]:
    # A sum for each point, and the number of images.
    sums = torch.zeros(len(points) + 1, dtype=torch.float64)
    for images, _ in chunks:
        sums[:-1] += curvature.divergences(images, points)
        sums[-1] += len(images)
    *found, images_seen = sum_over_ranks(sums).tolist()
    rows = []
    for point, divergence_sum in zip(points, found, strict=True):
        row = _named(point)
        row["divergence"] = divergence_sum / images_seen
        rows.append(row)
    return rows


def table(rows: Sequence[Row]) -> list[Row]:
    """A row a layer, a column a point: divergences as text, the network's order kept."""
    lines: dict[str, Row] = {}
    for row in rows:
        layer = row["layer"]
        line = lines.setdefault(layer, {"layer": layer})
        pattern = TITLES[row["kind"]]
        title = pattern.format(row["value"])
        line[title] = f"{row['divergence']:.2g}"
    return list(lines.values())


def _figures(logits: Tensor, changed: Tensor, labels: Tensor) -> Tensor:
    """The ``_Sums`` of one chunk."""
    moved = divergence(logits, changed).sum()
    right = changed.argmax(1) == labels
    loss = F.cross_entropy(changed.float(), labels, reduction="sum")
    images = loss.new_tensor(len(labels))
    sums = torch.stack([moved, right.sum(), loss, images])
    return sums.double().cpu()


def _named(point: Point) -> Row:
    return {"layer": point.layer, "kind": point.kind, "value": point.value}


def _chunks(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    for images, labels in batches:
        yield from zip(images.split(size), labels.split(size), strict=True)


def _with_time_left(chunks: Iterator[Batch], count: int, points: int) -> Iterator[Batch]:
    """The chunks, ``count`` of them, with a progress bar, and a line in the log after the first."""
    started = time.perf_counter()
    hidden = None if rank() == 0 else True
    bar = tqdm(chunks, f"{points} points", count, unit="chunk", leave=False, disable=hidden)
    for number, chunk in enumerate(bar):
        if number == 1:
            seconds_a_chunk = time.perf_counter() - started
            left = seconds_a_chunk * (count - 1)
            images = len(chunk[0])
            log.info("%d points on %d chunks of %d images: %.0f s left", points, count, images, left)
        yield chunk
