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

from micronet_cli.explore.trial import ACTIVATION_BITS, Point, Trial
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


class Curvature:
    """Estimates many points from the same passes.

    Attributes:
        trial: the network and its changes.
        generator: of the signs.
        probes: backward passes; more have less variance, as more images have.
    """

    def __init__(self, trial: Trial, generator: torch.Generator, probes: int = 1) -> None:
        self.trial, self.generator, self.probes = trial, generator, probes

    def layers(self, images: Tensor) -> set[str]:
        """Layers that can be estimated: called as modules, and always on what depends on the images."""
        with self._watched() as seen:
            self.trial.model(images.detach().requires_grad_())
        return {name for name, calls in seen.items() if calls.inputs and not calls.constant}

    def divergences(self, images: Tensor, points: Sequence[Point]) -> Tensor:
        """Sums over the images ``[N, C, H, W]`` of each point's estimated divergence, ``[points]``.

        Points are those of ``layers``.
        """
        with self._watched() as seen:
            logits = self.trial.model(images.detach().requires_grad_())
            for probe in range(self.probes):
                signs = torch.randint(0, 2, logits.shape, generator=self.generator).to(logits) * 2 - 1
                cotangent = fisher_factor(logits.detach(), signs)
                logits.backward(cotangent, retain_graph=probe + 1 < self.probes)
        found = []
        with torch.no_grad():
            for name, group in groupby(points, key=lambda point: point.layer):
                found += self._layer(self.trial.layers[name], seen[name], list(group), len(images))
        return torch.stack(found).double().cpu()

    def _layer(self, layer: nn.Module, seen: _Seen, points: Sequence[Point], images: int) -> list[Tensor]:
        before = [layer.forward(x) for x in seen.inputs]
        sums = []
        for point in points:
            moved = torch.zeros(self.probes, images, device=before[0].device)
            with self.trial.changed(point):
                for x, old, gradients in zip(seen.inputs, before, seen.gradients, strict=True):
                    x = self.trial.input_quantizer(point)(x) if point.kind == ACTIVATION_BITS else x
                    change = (layer.forward(x) - old).reshape(images, -1)
                    moved += torch.stack([(g.reshape(images, -1) * change).sum(1) for g in gradients])
            sums.append(moved.square().mean(0).sum() / 2)
        return sums

    @contextmanager
    def _watched(self) -> Iterator[dict[str, _Seen]]:
        seen = {name: _Seen() for name in self.trial.layers}

        def hook(name: str) -> RemovableHandle:
            def watch(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
                x = first_input(args, kwargs)
                if not x.requires_grad:
                    seen[name].constant = True
                    return
                seen[name].inputs.append(x.detach())
                gradients: list[Tensor] = []
                seen[name].gradients.append(gradients)
                output.register_hook(gradients.append)

            return self.trial.layers[name].register_forward_hook(watch, with_kwargs=True)

        handles = [hook(name) for name in self.trial.layers]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()
