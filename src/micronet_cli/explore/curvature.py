"""The divergence of the output to second order: one backward pass for all points.

What a changed layer adds to its output, d, moves the logits by J d, and the divergence is about
d^T J^T (diag(p) - p p^T) J d / 2: the square of one dot product with a gradient, in the mean over random signs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.explore.trial import ACTIVATION_BITS, Point, Points, Trial
from micronet_cli.functional.divergence import fisher_factor
from micronet_cli.layers.layer_input import first_input


@dataclass
class _Seen:
    """Of each call of a layer: what went in, and the gradients of what came out, one a probe.

    Attributes:
        constant: a call's input does not depend on the images, so there is no gradient an image.
    """

    inputs: list[Tensor] = field(default_factory=list)
    gradients: list[list[Tensor]] = field(default_factory=list)
    constant: bool = False

    @property
    def can_be_estimated(self) -> bool:
        """Called as a module, and always on what depends on the images."""
        if self.constant:
            return False
        return len(self.inputs) > 0

    def note(self, layer_input: Tensor, output: Tensor) -> None:
        """A call; its output's gradients come with the backward passes."""
        if not layer_input.requires_grad:
            self.constant = True
            return
        gradients: list[Tensor] = []
        self.inputs.append(layer_input.detach())
        self.gradients.append(gradients)
        output.register_hook(gradients.append)


class Curvature:
    """Estimates many points from the same passes.

    Attributes:
        trial: the network and its changes.
        generator: of the signs.
        probes: backward passes; more have less variance, as more images have.
    """

    def __init__(self, trial: Trial, generator: torch.Generator, probes: int = 1) -> None:
        self.trial = trial
        self.generator = generator
        self.probes = probes

    def layers(self, images: Tensor) -> set[str]:
        """Layers that can be estimated: called as modules, and always on what depends on the images."""
        with self._watched() as seen:
            self._logits(images)
        found = set()
        for name, calls in seen.items():
            if calls.can_be_estimated:
                found.add(name)
        return found

    def divergences(self, images: Tensor, points: Points) -> Tensor:
        """Sums over the images ``[N, C, H, W]`` of each point's estimated divergence, ``[points]``.

        Points are those of ``layers``.
        """
        with self._watched() as seen:
            logits = self._logits(images)
            for probe in range(self.probes):
                another_follows = probe + 1 < self.probes
                cotangent = self._cotangent(logits)
                logits.backward(cotangent, retain_graph=another_follows)
        found = []
        with torch.no_grad():
            for name, group in groupby(points, key=lambda point: point.layer):
                moves = _Moves(self.trial, name, seen[name])
                for point in group:
                    moved = moves.of(point, len(images))
                    squares = moved.square().mean(0)
                    found.append(squares.sum() / 2)
        sums = torch.stack(found)
        return sums.double().cpu()

    def _logits(self, images: Tensor) -> Tensor:
        """The network's output; the images need gradients, for its parameters are frozen."""
        watched = images.detach().requires_grad_()
        return self.trial.model(watched)

    def _cotangent(self, logits: Tensor) -> Tensor:
        zeros_and_ones = torch.randint(0, 2, logits.shape, generator=self.generator)
        signs = zeros_and_ones.to(logits) * 2 - 1
        return fisher_factor(logits.detach(), signs)

    @contextmanager
    def _watched(self) -> Iterator[dict[str, _Seen]]:
        seen: dict[str, _Seen] = {}
        handles = []
        for name, layer in self.trial.layers.items():
            seen[name] = _Seen()
            handles.append(_watch(layer, seen[name]))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


class _Moves:
    """How far changes of one layer move the logits, in the direction of each probe."""

    def __init__(self, trial: Trial, name: str, seen: _Seen) -> None:
        self._trial = trial
        self._layer = trial.layers[name]
        self._seen = seen
        forward = self._layer.forward
        self._before = [forward(x) for x in seen.inputs]

    def of(self, point: Point, images: int) -> Tensor:
        """Of the layer at ``point``, over all its calls: ``[probes, images]``."""
        moved = torch.zeros(())
        with self._trial.changed(point):
            for x, before, gradients in zip(self._seen.inputs, self._before, self._seen.gradients, strict=True):
                if point.kind == ACTIVATION_BITS:
                    quantize = self._trial.input_quantizer(point)
                    x = quantize(x)
                change = self._layer.forward(x) - before
                moved = moved + _dot_products(gradients, change, images)
        return moved


def _watch(layer: nn.Module, seen: _Seen) -> RemovableHandle:
    def note(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
        x = first_input(args, kwargs)
        seen.note(x, output)

    return layer.register_forward_hook(note, with_kwargs=True)


def _dot_products(gradients: Sequence[Tensor], change: Tensor, images: int) -> Tensor:
    """Dot products of the change with each gradient, image by image: ``[probes, images]``."""
    # The first axis need not be that of the images: attention in windows has it longer.
    change = change.reshape(images, -1)
    found = []
    for gradient in gradients:
        products = gradient.reshape(images, -1) * change
        found.append(products.sum(1))
    return torch.stack(found)
