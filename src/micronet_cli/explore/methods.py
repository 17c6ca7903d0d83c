"""The two ways to tell what a point costs: evaluate it, or estimate it to second order.

Both take the images chunk by chunk, add up over them and over all processes, and give a row a point.
"""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from micronet_cli.distributed import sum_over_ranks
from micronet_cli.errors import UserError
from micronet_cli.explore.curvature import Curvature
from micronet_cli.explore.prefix import Prefix
from micronet_cli.explore.trial import Point, Points, Trial
from micronet_cli.functional.divergence import divergence
from micronet_cli.layers.finite import is_finite, non_finite_source

Row = dict[str, Any]


class Method(Protocol):
    """Costs of points, over images."""

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Take in images ``[N, C, H, W]`` and labels ``[N]``."""

    def rows(self) -> list[Row]:
        """``layer kind value divergence`` of every point, and what else the method tells; in the mean over images."""


@dataclass(frozen=True)
class _Figures:
    """A network's figures, each a sum over images."""

    divergence: float
    hits: float
    loss: float
    images: float


class Evaluation:
    """Every point on every image, from the changed layer on; also ``top1 top1_drop loss_increase``."""

    def __init__(self, trial: Trial, prefix: Prefix, points: Points) -> None:
        self._trial = trial
        self._prefix = prefix
        self._points = points
        self._changed = _zeros(len(points), 4)
        self._unchanged = _zeros(4)

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Take in images ``[N, C, H, W]`` and labels ``[N]``."""
        logits = self._prefix.record(images)
        self._unchanged += _figures(logits, logits, labels)
        for sums, point in zip(self._changed, self._points, strict=True):
            layer = self._trial.layers[point.layer]
            with self._trial.changed(point):
                changed = self._prefix.replay(images, layer)
                figures = _figures(logits, changed, labels)
                _check_finite(figures, point, self._trial.model, images)
            sums += figures

    def rows(self) -> list[Row]:
        """A row a point: divergence, top1 (percent), top1_drop (points), loss_increase (nats)."""
        all_sums = torch.cat([self._changed, self._unchanged[None]])
        *changed, last = sum_over_ranks(all_sums).tolist()
        unchanged = _Figures(*last)
        rows = []
        for point, sums in zip(self._points, changed, strict=True):
            figures = _Figures(*sums)
            row = asdict(point)
            row |= _cost(figures, unchanged)
            rows.append(row)
        return rows


class Estimation:
    """The divergence alone, without labels, at the price of a few runs of the network for all points."""

    def __init__(self, curvature: Curvature, points: Points) -> None:
        self._curvature = curvature
        self._points = points
        self._divergences = _zeros(len(points))
        self._images = _zeros(1)

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Take in images ``[N, C, H, W]``; labels are not looked at."""
        divergences = self._curvature.divergences(images, self._points)
        for figure, point in zip(divergences, self._points, strict=True):
            _check_finite(figure, point, self._curvature.trial.model, images)
        self._divergences += divergences
        self._images += len(images)

    def rows(self) -> list[Row]:
        """A row a point: divergence."""
        all_sums = torch.cat([self._divergences, self._images])
        *divergences, images = sum_over_ranks(all_sums).tolist()
        rows = []
        for point, summed in zip(self._points, divergences, strict=True):
            row = asdict(point)
            row["divergence"] = summed / images
            rows.append(row)
        return rows


def _zeros(*shape: int) -> Tensor:
    """Sums that keep their digits over many images."""
    return torch.zeros(shape, dtype=torch.float64)


def _figures(logits: Tensor, changed: Tensor, labels: Tensor) -> Tensor:
    """The ``_Figures`` of one chunk, ``[4]``."""
    moved = divergence(logits, changed)
    right = changed.argmax(1) == labels
    loss = F.cross_entropy(changed.float(), labels, reduction="sum")
    sums = [
        moved.sum(),
        right.sum(),
        loss,
        loss.new_tensor(len(labels)),
    ]
    return torch.stack(sums).double().cpu()


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


def _cost(changed: _Figures, unchanged: _Figures) -> Row:
    """A point against the unchanged network, in the mean over images."""
    images = unchanged.images
    lost_hits = unchanged.hits - changed.hits
    added_loss = changed.loss - unchanged.loss
    return {
        "divergence": changed.divergence / images,
        "top1": 100 * changed.hits / images,
        "top1_drop": 100 * lost_hits / images,
        "loss_increase": added_loss / images,
    }
