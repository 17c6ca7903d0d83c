"""What it costs to prune or to quantise each layer alone."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from micronet_cli.distributed import rank, sum_over_ranks
from micronet_cli.errors import UserError
from micronet_cli.explore.curvature import Curvature
from micronet_cli.explore.prefix import Prefix
from micronet_cli.explore.trial import ACTIVATION_BITS, SPARSITY, WEIGHT_BITS, Point, Trial
from micronet_cli.functional.divergence import divergence
from micronet_cli.functional.pruning import magnitude
from micronet_cli.layers.finite import is_finite, non_finite_source

log = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor]
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
        for name in ("weight_bits", "activation_bits"):
            if not all(1 <= bits <= 16 for bits in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: must be bits in [1, 16]")
        if not (self.sparsities or self.weight_bits or self.activation_bits):
            raise ValueError("sparsities=[]: nothing to try; give sparsities, weight_bits or activation_bits")
        for name in ("images", "memory_mb"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")

    def measure(self, model: nn.Module, batches: Callable[[], Iterator[Batch]], seed: int = 0) -> list[dict[str, Any]]:
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
        size = max(1, min(MOST_IMAGES, self.memory_mb * 2**20 // max(prefix.bytes_per_image, 1)))
        count = trial.watch_inputs(images for images, _ in _chunks(batches(), size))
        points = trial.points(self.sparsities, self.weight_bits, self.activation_bits)
        if self.method == "evaluate":
            return self._evaluate(trial, prefix, points, _with_time_left(_chunks(batches(), size), count, len(points)))
        curvature = Curvature(trial, torch.Generator().manual_seed(seed + rank()))
        able = curvature.layers(first[:1])
        if left_out := sorted({point.layer for point in points} - able):
            log.warning("not estimated, for they are not called as modules or not on images: %s", ", ".join(left_out))
        points = [point for point in points if point.layer in able]
        return self._estimate(curvature, points, _with_time_left(_chunks(batches(), size), count, len(points)))

    def _evaluate(
        self, trial: Trial, prefix: Prefix, points: Sequence[Point], chunks: Iterator[Batch]
    ) -> list[dict[str, Any]]:
        sums = torch.zeros(len(points) + 1, 4, dtype=torch.float64)
        for images, labels in chunks:
            logits = prefix.record(images)
            sums[-1] += _figures(logits, logits, labels)
            for row, point in zip(sums, points, strict=False):
                with trial.changed(point):
                    figures = _figures(logits, prefix.replay(images, trial.layers[point.layer]), labels)
                    _check_finite(figures, point, trial.model, images)
                row += figures
        *rows, (_, top1, loss, images_seen) = sum_over_ranks(sums).tolist()
        return [
            _named(point)
            | {
                "divergence": kl / images_seen,
                "top1": 100 * hits / images_seen,
                "top1_drop": 100 * (top1 - hits) / images_seen,
                "loss_increase": (nats - loss) / images_seen,
            }
            for point, (kl, hits, nats, _) in zip(points, rows, strict=True)
        ]

    def _estimate(self, curvature: Curvature, points: Sequence[Point], chunks: Iterator[Batch]) -> list[dict[str, Any]]:
        sums = torch.zeros(len(points) + 1, dtype=torch.float64)
        for images, _ in chunks:
            divergences = curvature.divergences(images, points)
            for figure, point in zip(divergences, points, strict=True):
                _check_finite(figure, point, curvature.trial.model, images)
            sums[:-1] += divergences
            sums[-1] += len(images)
        *found, images_seen = sum_over_ranks(sums).tolist()
        return [_named(point) | {"divergence": kl / images_seen} for point, kl in zip(points, found, strict=True)]


def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a layer, a column a point: divergences as text, the network's order kept."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        layer = found.setdefault(row["layer"], {"layer": row["layer"]})
        layer[TITLES[row["kind"]].format(row["value"])] = f"{row['divergence']:.2g}"
    return list(found.values())


def _figures(logits: Tensor, changed: Tensor, labels: Tensor) -> Tensor:
    """Sums over images: divergence, hits, cross-entropy, images."""
    loss = F.cross_entropy(changed.float(), labels, reduction="sum")
    hits = (changed.argmax(1) == labels).sum()
    return torch.stack([divergence(logits, changed).sum(), hits, loss, loss.new_tensor(len(labels))]).double().cpu()


def _check_finite(figures: Tensor, point: Point, model: nn.Module, images: Tensor) -> None:
    """Of a point, on some images.

    Raises:
        UserError: they are not; the message names the point, and the layer where that begins.
    """
    if is_finite(figures):
        return
    source = non_finite_source(model, images)
    raise UserError(
        f"sensitivity: {point.layer} with {point.kind}={point.value:g}: its figures are not finite, first in {source}; "
        "leave the value out, or give another checkpoint"
    )


def _named(point: Point) -> dict[str, Any]:
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
            left = (time.perf_counter() - started) * (count - 1)
            log.info("%d points on %d chunks of %d images: %.0f s left", points, count, len(chunk[0]), left)
        yield chunk
