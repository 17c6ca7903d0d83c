"""Layer after layer is rounded and corrected, each with what the layers before it have become."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.layer_output import can_be_shifted, normalised, shift_output
from micronet_cli.compression.quantization.reconstruction import Reconstruction, mean_square
from micronet_cli.functional.equalization import expected_output
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.finite import NotFinite
from micronet_cli.trace.carried import carried
from micronet_cli.trace.chains import Chain
from micronet_cli.trace.layer_inputs import has_rows, input_rows

# What costs as many multiplications as it: a step of learning whatever the layer, a weight in it, an output.
PER_STEP = 1e7
PER_WEIGHT = 200
PER_OUTPUT = 200


@dataclass
class LayerByLayer:
    """A quantised network on its way to what its float network gives.

    Attributes:
        reference: the network in float.
        model: quantised and calibrated; changed in place.
        chains: layer -> what follows it, in the executed order.
        rows: positions that a layer is judged at, over all images.
        adaround: learned rounding; None: to the nearest.
        correct_bias: whether what quantisation adds to the mean of an output is taken off again.
        memory_mb: what waiting networks may hold in memory.
        directory: where they wait beyond that; None: the system's own place.
        seed: draws the positions.
        done: layers that are finished.
    """

    reference: nn.Module
    model: nn.Module
    chains: Mapping[str, Chain]
    rows: int
    adaround: AdaRound | None
    correct_bias: bool
    memory_mb: int
    directory: Path | None = None
    seed: int = 0
    done: int = 0
    names: list[str] = field(init=False)
    left_out: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        quantized = []
        for name, layer in self.model.named_modules():
            if _is_quantized(layer):
                quantized.append(name)
        self.names = []
        for name in self.chains:
            layer = self.model.get_submodule(name)
            if name in quantized and has_rows(layer):
                self.names.append(name)
        self.left_out = [name for name in quantized if name not in self.names]

    def costs(self) -> list[float]:
        """What each layer takes, in multiplications or as good as."""
        return [self._cost(name) for name in self.names]

    def _cost(self, name: str) -> float:
        layer = self.model.get_submodule(name)
        weights = layer.weight.numel()
        outputs = len(layer.weight)
        per_row = weights + PER_OUTPUT * outputs
        cost = self.rows * per_row
        parts = effective_weight(layer)
        if self.adaround is None or parts is None or parts.fake_quantize is None:
            return cost
        if not self.adaround.learns(parts.fake_quantize.bits):
            return cost
        inputs = layer.weight[0].numel()
        if self.adaround.iterations is None:
            return cost + self.rows * inputs * inputs + 2 * self.rows * per_row
        step = weights * inputs
        if self.chains[name].activation is not None:
            step = self.adaround.batch_size * per_row
        return cost + self.adaround.iterations * (step + PER_STEP + PER_WEIGHT * weights)

    def state(self) -> dict[str, Any]:
        """What decides the layers that are still to come."""
        return {
            "done": self.done,
            "names": self.names,
            "generator": self._generator.get_state(),
            "model": self.model.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Bring it to a state.

        Raises:
            RuntimeError, KeyError, TypeError, ValueError: it is of another network.
        """
        if state["names"] != self.names:
            raise ValueError("it has other layers")
        self.model.load_state_dict(state["model"])
        self._generator.set_state(state["generator"])
        self.done = state["done"]

    def run(self, batches: Sequence[Tensor]) -> Iterator[dict[str, Any]]:
        """Go through the layers that are not done.

        Args:
            batches: images ``[N, C, H, W]``.

        Yields:
            layer, error before and after: ||f(W x) - f(W' x')||^2 over ||f(W x)||^2.

        Raises:
            NotFinite: an error is not.
        """
        images = sum(len(batch) for batch in batches)
        per_image = max(1, self.rows // images)
        networks = (self.reference, self.model)
        # The other half is for the run that is at work, and the rows.
        waiting_bytes = self.memory_mb * 2**20 / 2
        with carried(networks, batches, waiting_bytes, self.directory) as forward:
            for name in self.names[self.done :]:
                layer = self.reference.get_submodule(name)
                inputs = forward.inputs(name)
                rows = input_rows(layer, inputs, images, per_image, self._generator)
                line = self._layer(name, *rows)
                self.done += 1
                yield line

    def _layer(self, name: str, rows: Tensor, quantized_rows: Tensor) -> dict[str, Any]:
        """Round and correct one layer, given the rows that it reads in both networks; its error before and after."""
        chain = self.chains[name]
        layer = self.model.get_submodule(name)
        in_float = self.reference.get_submodule(name)
        undisturbed = self._reconstruction(self.reference, chain, rows)
        with torch.no_grad():
            target = undisturbed.outputs(in_float.weight)
            size = float(mean_square(target)) or 1.0
            judged = self._reconstruction(self.model, chain, quantized_rows, target)
            before = float(judged.error(layer.weight)) / size
        _check_finite(name, before)
        learned = self._is_learned(layer, judged, in_float.weight, size)
        if learned:
            assert self.adaround is not None
            centred = self.correct_bias and can_be_shifted(self.model, chain)
            self.adaround.round(layer, judged, centred)
        if self.correct_bias:
            self._correct_bias(chain, rows, quantized_rows)
        with torch.no_grad():
            corrected = self._reconstruction(self.model, chain, quantized_rows, target)
            after = float(corrected.error(layer.weight)) / size
        _check_finite(name, after)
        return {"layer": name, "error_before": before, "error": after, "learned": learned}

    def _reconstruction(
        self, network: nn.Module, chain: Chain, rows: Tensor, target: Tensor | None = None
    ) -> Reconstruction:
        """The layer as it is in one of the networks: a corrected bias makes another."""
        if target is None:
            target = rows.new_empty(0)
        return Reconstruction(rows, target, normalised(network, chain), chain.activation)

    @torch.no_grad()
    def _is_learned(self, layer: nn.Module, judged: Reconstruction, in_float: Tensor, size: float) -> bool:
        """Whether the layer's rounding is learned."""
        parts = effective_weight(layer)
        if self.adaround is None or parts is None or parts.fake_quantize is None:
            return False
        if self.adaround.learns(parts.fake_quantize.bits):
            return True
        unrounded = judged.outputs(in_float)
        rounded = judged.outputs(layer.weight)
        change = mean_square(rounded - unrounded)
        return self.adaround.learns_from(float(change) / size)

    @torch.no_grad()
    def _correct_bias(self, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> None:
        """Take off what quantisation added to the mean of a layer's output."""
        in_float = _mean_output(self.reference, chain, rows)
        quantized = _mean_output(self.model, chain, quantized_rows)
        change = in_float - quantized
        shift_output(self.model, chain, change)


def _check_finite(name: str, error: float) -> None:
    """Raise NotFinite where a layer's error is not finite."""
    if not math.isfinite(error):
        raise NotFinite(
            f"{name}: what quantisation changes in its output is {error}; "
            "give a network with smaller weights, or leave the layer in float"
        )


def _mean_output(network: nn.Module, chain: Chain, rows: Tensor) -> Tensor:
    """The mean over the rows of a layer's output behind its bias and BatchNorm, ``[C_out]``."""
    layer = network.get_submodule(chain.layer)
    mean_row = rows.mean(1)
    products = expected_output(layer.weight, mean_row)
    with_bias = normalised(network, chain)
    mean = with_bias(products[:, None])
    return mean[:, 0]


def _is_quantized(layer: nn.Module) -> bool:
    """Whether the weight or the input of a compressed layer is quantised."""
    parts = effective_weight(layer)
    if parts is None:
        return False
    if parts.fake_quantize is not None:
        return True
    return getattr(layer, "input_fake_quantize", None) is not None
