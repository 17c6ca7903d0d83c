"""Layer after layer is rounded and corrected, each with what the layers before it have become."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.adaround import AdaRound
from micronet_cli.compression.quantization.layer_costs import LayerCosts, layer_work
from micronet_cli.compression.quantization.layer_output import can_be_shifted, normalised, shift_output
from micronet_cli.compression.quantization.reconstruction import Reconstruction, mean_square
from micronet_cli.functional.equalization import expected_output
from micronet_cli.layers.effective_weight import effective_weight, original_weight
from micronet_cli.layers.finite import NotFinite
from micronet_cli.trace.carried import Carried, carried
from micronet_cli.trace.chains import Chain
from micronet_cli.trace.layer_inputs import Room, has_rows, input_rows

# Of the images that are at work at one time: few, for both networks keep what they need meanwhile.
PIXELS_TOGETHER = 1 << 19
# Rows, the first of them in their random order, that tell a layer's error; all of them decide what is changed.
JUDGED = 1 << 12


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
        self._rooms = [Room(), Room()]  # of the float network's rows, and of the other's
        quantized = _quantized_layers(self.model)
        self.names = []
        for name in self.chains:
            if name in quantized and has_rows(quantized[name]):
                self.names.append(name)
        self.left_out = [name for name in quantized if name not in self.names]
        self._layers = list(self.names)

    def costs(self, batches: Sequence[Tensor]) -> list[float]:
        """What each layer takes with these images ``[N, C, H, W]``, in multiplications or as good as."""
        images = sum(len(batch) for batch in batches)
        one_image = batches[0][:1]
        work = layer_work(self.reference, one_image, self._layers)
        of_layers = LayerCosts(self.model, self.chains, work, images, self.rows, JUDGED, self.adaround)
        return [self._cost(name, of_layers) for name in self.names]

    def _cost(self, name: str, of_layers: LayerCosts) -> float:
        return of_layers.cost(name)

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
        pieces = _in_pieces(batches)
        images = sum(len(piece) for piece in pieces)
        networks = (self.reference, self.model)
        memory_bytes = self.memory_mb * 2**20
        # The other half is for the run that is at work, and the rows.
        waiting_bytes = memory_bytes / 2
        with carried(networks, pieces, waiting_bytes, self.directory) as forward:
            for name in self.names[self.done :]:
                line = self._step(name, forward, images)
                self.done += 1
                yield line

    def _step(self, name: str, forward: Carried, images: int) -> dict[str, Any]:
        """The next of ``names``."""
        layer = self.reference.get_submodule(name)
        inputs = forward.inputs(name)
        per_image = max(1, self.rows // images)
        rows = input_rows(layer, inputs, images, per_image, self._generator, self._rooms)
        return self._layer(name, *rows)

    def _layer(self, name: str, rows: Tensor, quantized_rows: Tensor) -> dict[str, Any]:
        """Round and correct one layer, given the rows that it reads in both networks; its error before and after."""
        chain = self.chains[name]
        layer = self.model.get_submodule(name)
        in_float = self.reference.get_submodule(name)
        judged_rows = quantized_rows[:, :JUDGED]
        with torch.no_grad():
            undisturbed = self._reconstruction(self.reference, chain, rows[:, :JUDGED])
            target = undisturbed.outputs(in_float.weight)
            size = float(mean_square(target)) or 1.0
            judged = self._reconstruction(self.model, chain, judged_rows, target)
            before = float(judged.error(layer.weight)) / size
        check_finite(name, before)
        learned = self._is_learned(layer, judged, size)
        if learned:
            self._round(chain, rows, quantized_rows)
        if self.correct_bias:
            self._correct_bias(chain, rows, quantized_rows)
        with torch.no_grad():
            corrected = self._reconstruction(self.model, chain, judged_rows, target)
            after = float(corrected.error(layer.weight)) / size
        check_finite(name, after)
        return {"layer": name, "error_before": before, "error": after, "learned": learned}

    def _reconstruction(
        self, network: nn.Module, chain: Chain, rows: Tensor, target: Tensor | None = None
    ) -> Reconstruction:
        """The layer as it is in one of the networks: a corrected bias makes another."""
        if target is None:
            target = rows.new_empty(0)
        with_bias = normalised(network, chain)
        return Reconstruction(rows, target, with_bias, chain.activation)

    def _round(self, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> None:
        """Learn the rounding of a layer, from all rows."""
        assert self.adaround is not None
        in_float = self.reference.get_submodule(chain.layer)
        undisturbed = self._reconstruction(self.reference, chain, rows)
        with torch.no_grad():
            target = undisturbed.outputs(in_float.weight)
        layer = self.model.get_submodule(chain.layer)
        judged = self._reconstruction(self.model, chain, quantized_rows, target)
        centred = self.correct_bias and can_be_shifted(self.model, chain)
        self.adaround.round(layer, judged, centred)

    @torch.no_grad()
    def _is_learned(self, layer: nn.Module, judged: Reconstruction, size: float) -> bool:
        """Whether the layer's rounding is learned."""
        parts = effective_weight(layer)
        if self.adaround is None or parts is None or parts.fake_quantize is None:
            return False
        if self.adaround.learns(parts.fake_quantize.bits):
            return True
        # Not the float network's, which need not be pruned.
        masked = parts.masked(original_weight(layer))
        unrounded = judged.outputs(masked)
        rounded = judged.outputs(layer.weight)
        change = mean_square(rounded - unrounded)
        relative = float(change) / size
        return self.adaround.learns_from(relative)

    @torch.no_grad()
    def _correct_bias(self, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> None:
        """Take off what quantisation added to the mean of a layer's output."""
        in_float = _mean_output(self.reference, chain, rows)
        quantized = _mean_output(self.model, chain, quantized_rows)
        change = in_float - quantized
        shift_output(self.model, chain, change)


def check_finite(name: str, error: float) -> None:
    """Raise NotFinite where a layer's error is not finite."""
    if not math.isfinite(error):
        raise NotFinite(
            f"{name}: what quantisation changes in its output is {error}; "
            "give a network with smaller weights, or leave the layer in float"
        )


def _in_pieces(batches: Sequence[Tensor]) -> list[Tensor]:
    """The images ``[N, C, H, W]`` in the same order, no more together than ``PIXELS_TOGETHER`` lets."""
    pieces: list[Tensor] = []
    for batch in batches:
        pixels = batch[0, 0].numel()
        together = max(1, PIXELS_TOGETHER // pixels)
        pieces += batch.split(together)
    return pieces


def _mean_output(network: nn.Module, chain: Chain, rows: Tensor) -> Tensor:
    """The mean over the rows of a layer's output behind its bias and BatchNorm, ``[C_out]``."""
    layer = network.get_submodule(chain.layer)
    mean_row = rows.mean(1)
    products = expected_output(layer.weight, mean_row)
    with_bias = normalised(network, chain)
    mean = with_bias(products[:, None])
    return mean[:, 0]


def _quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    layers = {}
    for name, layer in model.named_modules():
        if _is_quantized(layer):
            layers[name] = layer
    return layers


def _is_quantized(layer: nn.Module) -> bool:
    """Whether the weight or the input of a compressed layer is quantised."""
    parts = effective_weight(layer)
    if parts is None:
        return False
    if parts.fake_quantize is not None:
        return True
    return getattr(layer, "input_fake_quantize", None) is not None
