"""What each layer of post-training takes, beside the others: the time that is left is told by it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.trace.chains import Chain
from micronet_cli.trace.layer_inputs import positions_looked_at

NETWORKS = 2  # in float and quantised
# What takes as long as so many multiplications, fitted to EfficientNet-Lite0 and ResNet-20: a number that a module
# reads or gives, rounding included; a layer by itself; a number that a row reads; a weight at a row that judges it.
PER_ELEMENT = 60
PER_LAYER = 4e9
PER_VALUE = 30
PER_JUDGED = 17
# Of rounding: a second moment at a row; two weights of a channel in the sweeps; of Adam, a step whatever the layer, a
# weight in it, an output.
PER_MOMENT = 3
PER_PAIR = 70
PER_STEP = 1e7
PER_WEIGHT = 200
PER_OUTPUT = 200


@dataclass(frozen=True)
class LayerWork:
    """Of one image.

    Attributes:
        before: multiplications, or as good as, from the layer before to this one.
        positions: rows of its input that it multiplies with its weight.
    """

    before: float
    positions: int


@torch.no_grad()
def layer_work(model: nn.Module, image: Tensor, names: Collection[str]) -> dict[str, LayerWork]:
    """Run the network once.

    Args:
        model: in evaluation mode.
        image: ``[1, C, H, W]``.
        names: layers with a weight ``[C_out, ...]``, each of which is called.
    """
    passed = 0.0
    last = 0.0
    found: dict[str, LayerWork] = {}

    def after(name: str) -> Callable[[nn.Module, tuple, Any], None]:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            nonlocal passed, last
            if name in names and name not in found:
                positions = output.numel() // len(module.weight)
                found[name] = LayerWork(passed - last, positions)
                last = passed
            passed += _work_of(module, inputs, output)

        return hook

    handles = []
    for name, module in model.named_modules():
        makes_weight = ".parametrizations" in name
        is_leaf = next(module.children(), None) is None
        if name in names or (is_leaf and not makes_weight):
            handle = module.register_forward_hook(after(name))
            handles.append(handle)
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _work_of(module: nn.Module, inputs: tuple, output: Any) -> float:
    """One call's multiplications, or as good as."""
    tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
    work = PER_ELEMENT * sum(value.numel() for value in tensors)
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() > 1 and isinstance(output, Tensor):
        work += output.numel() * weight[0].numel()
    return work


@dataclass(frozen=True)
class LayerCosts:
    """In multiplications, or what takes as long.

    Attributes:
        model: quantised.
        chains: layer -> what follows it.
        work: of ``layer_work``.
        images: that are looked at.
        rows: over all images, at most.
        judged: rows that tell a layer's error.
        adaround: learned rounding; None: to the nearest.
    """

    model: nn.Module
    chains: Mapping[str, Chain]
    work: Mapping[str, LayerWork]
    images: int
    rows: int
    judged: int
    adaround: AdaRound | None

    def cost(self, name: str) -> float:
        """To go to a layer, to read its rows in both networks, to judge them, to round its weight."""
        layer = self.model.get_submodule(name)
        rows = self._rows(name)
        carried = NETWORKS * self.images * self.work[name].before
        read = NETWORKS * rows * _values_of_row(layer) * PER_VALUE
        judged = min(rows, self.judged) * layer.weight.numel() * PER_JUDGED
        return PER_LAYER + carried + read + judged + self._rounding(name)

    def _rows(self, name: str) -> int:
        layer = self.model.get_submodule(name)
        wanted = max(1, self.rows // self.images)
        looked_at = positions_looked_at(layer, self.images, wanted)
        return self.images * min(looked_at, self.work[name].positions)

    def _rounding(self, name: str) -> float:
        """Of a layer whose rounding is sure to be learned; else 0."""
        layer = self.model.get_submodule(name)
        parts = effective_weight(layer)
        if self.adaround is None or parts is None or parts.fake_quantize is None:
            return 0.0
        if not self.adaround.learns(parts.fake_quantize.bits):
            return 0.0
        rows = self._rows(name)
        weights = layer.weight.numel()
        inputs = layer.weight[0].numel()
        pairs = weights * inputs
        if self.adaround.iterations is None:
            moments = _values_of_row(layer) * inputs
            return rows * PER_MOMENT * (moments + 2 * weights) + PER_PAIR * pairs
        step = pairs
        if self.chains[name].activation is not None:
            step = self.adaround.batch_size * (weights + PER_OUTPUT * len(layer.weight))
        return self.adaround.iterations * (step + PER_STEP + PER_WEIGHT * weights)


def _values_of_row(layer: nn.Module) -> int:
    """Numbers that all groups of a layer read at one position."""
    groups = getattr(layer, "groups", 1)
    return groups * layer.weight[0].numel()
