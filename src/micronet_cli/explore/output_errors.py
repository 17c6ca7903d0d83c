"""What quantisation adds to the output of every layer, and how much of the logits' error comes of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.explore.in_float import in_float
from micronet_cli.explore.kept_means import kept_means


class OutputErrors:
    """Of a quantised network with frozen parameters.

    A layer's own error d is its output less that of the layer in float on the same input. It moves the logits by J d, J
    their derivative by that output, and to first order the logits' error e is the sum of all layers' J d. So
    e^T J d / e^T e is a layer's share, all shares add up to 1, and one backward pass has them all. Layers whose bias
    was corrected keep the means of their outputs: what lies in these comes of no layer.

    Attributes:
        shares: layer -> its share; of layers that are called as modules.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        weights: Mapping[str, Tensor],
        reference: nn.Module,
        corrected: Mapping[str, nn.Module],
    ) -> None:
        self.shares: dict[str, float] = {}
        self._model = model
        self._layers = layers
        self._weights = weights
        self._reference = reference
        self._corrected = corrected
        self._comparing = False

    def measure(self, chunks: Sequence[Tensor]) -> None:
        """On images ``[N, C, H, W]``, chunk by chunk; without derivatives of the network there are no shares."""
        size = 0.0
        for chunk in chunks:
            with torch.no_grad():
                expected = self._reference(chunk)
            try:
                with kept_means(self._corrected), self._watched():
                    size += self._run(chunk, expected)
            except RuntimeError:
                # Code that writes where a derivative is needed, or has none.
                self.shares = {}
                return
        self.shares = {name: product / (size or 1.0) for name, product in self.shares.items()}

    def _run(self, images: Tensor, expected: Tensor) -> float:
        """Forwards and backwards; the squared error of the logits."""
        watched = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._model(watched)
        error = logits.detach() - expected
        logits.backward(error)
        return float(error.double().square().sum())

    @contextmanager
    def _watched(self) -> Iterator[None]:
        handles = []
        for name, layer in self._layers.items():
            handles += self._watch(name, layer)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, name: str, layer: nn.Module) -> list[RemovableHandle]:
        calls = []

        def before(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            calls.append((args, kwargs))

        def after(_: nn.Module, __: tuple, output: Any) -> None:
            args, kwargs = calls.pop()
            if self._comparing or not isinstance(output, Tensor) or not output.requires_grad:
                return
            own_error = self._own_error(name, output, args, kwargs)
            self._add_share_of(name, output, own_error)

        # The first of the hooks: the input is not quantised yet, nor is the output.
        return [
            layer.register_forward_pre_hook(before, prepend=True, with_kwargs=True),
            layer.register_forward_hook(after, prepend=True),
        ]

    @torch.no_grad()
    def _own_error(self, name: str, output: Tensor, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        """What the layer itself adds to its output."""
        layer = self._layers[name]
        self._comparing = True
        try:
            with in_float(layer, self._weights.get(name)):
                return output - layer.forward(*args, **kwargs)
        finally:
            self._comparing = False

    def _add_share_of(self, name: str, output: Tensor, own_error: Tensor) -> None:
        """Once the gradient of the output is there."""

        def add(gradient: Tensor) -> None:
            product = float((gradient * own_error).sum())
            self.shares[name] = self.shares.get(name, 0.0) + product

        output.register_hook(add)
