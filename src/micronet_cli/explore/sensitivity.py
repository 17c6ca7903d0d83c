"""What it costs to prune or to quantise each layer alone."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from micronet_cli.distributed import rank
from micronet_cli.explore.curvature import Curvature
from micronet_cli.explore.methods import Estimation, Evaluation, Method, Row
from micronet_cli.explore.prefix import Prefix
from micronet_cli.explore.trial import ACTIVATION_BITS, SPARSITY, WEIGHT_BITS, Points, Trial
from micronet_cli.functional.pruning import magnitude

log = logging.getLogger(__name__)
Chunks = Iterator[tuple[Tensor, Tensor]]  # images and labels
Batches = Callable[[], Chunks]
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
        points: Points = trial.points(self.sparsities, self.weight_bits, self.activation_bits)
        method: Method
        if self.method == "evaluate":
            method = Evaluation(trial, prefix, points)
        else:
            signs = torch.Generator().manual_seed(seed + rank())
            curvature = Curvature(trial, signs)
            able = curvature.layers(first[:1])
            points = _only_of(able, points)
            method = Estimation(curvature, points)
        chunks = _chunks(batches(), size)
        for images, labels in _with_time_left(chunks, count, len(points)):
            method.add(images, labels)
        return method.rows()

    def _images_together(self, bytes_per_image: int) -> int:
        """As many as the memory holds, at least one."""
        memory = self.memory_mb * 2**20
        fitting = memory // max(bytes_per_image, 1)
        if fitting > MOST_IMAGES:
            return MOST_IMAGES
        return max(1, fitting)


def _check_bits(name: str, values: Sequence[float]) -> None:
    for bits in values:
        if not 1 <= bits <= 16:
            raise ValueError(f"{name}={values}: must be bits in [1, 16]")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}: must be at least 1")


def _only_of(layers: Collection[str], points: Points) -> Points:
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


def _chunks(batches: Chunks, size: int) -> Chunks:
    for images, labels in batches:
        yield from zip(images.split(size), labels.split(size), strict=True)


def _with_time_left(chunks: Chunks, count: int, points: int) -> Chunks:
    """The chunks, ``count`` of them, with a progress bar, and a line in the log after the first."""
    started = time.perf_counter()
    bar = tqdm(
        chunks,
        desc=f"{points} points",
        total=count,
        unit="chunk",
        leave=False,
        disable=None if rank() == 0 else True,
    )
    for number, chunk in enumerate(bar):
        if number == 1:
            seconds_a_chunk = time.perf_counter() - started
            left = seconds_a_chunk * (count - 1)
            images = len(chunk[0])
            log.info("%d points on %d chunks of %d images: %.0f s left", points, count, images, left)
        yield chunk
