"""Quantisation after training, from a few images without labels: ranges, biases, rounding."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.compression.quantization.adaround import AdaRound, Reconstruction
from micronet_cli.compression.quantization.equalization import equalize
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.layer_output import normalised, shift_output
from micronet_cli.functional.calibration import RangeEstimate, mse
from micronet_cli.functional.equalization import expected_output
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.layers.finite import FiniteOutputs, NotFinite
from micronet_cli.trace.chains import Chain, chains
from micronet_cli.trace.layer_inputs import has_rows, input_rows, product

HISTORY = {"_target_": "micronet_cli.compression.quantization.fixed_grid.FixedGrids"}


@dataclass(frozen=True)
class PostTraining:
    """The ``ptq`` config group.

    Attributes:
        images: training images that are looked at, without labels.
        rows: positions that a layer is judged at, over all images.
        equalize: cross-layer equalisation (arXiv 1906.04721, section 4.1), before quantisers are attached.
        correct_bias: what quantisation adds to the mean of an output is taken off again (the same, section 4.2).
        activation_range: batch -> range of the inputs' quantisers meanwhile; null: each quantiser's own estimate.
        adaround: learned rounding; null: to the nearest.
    """

    images: int = 512
    rows: int = 32768
    equalize: bool = True
    correct_bias: bool = True
    activation_range: RangeEstimate | None = mse
    adaround: AdaRound | None = field(default_factory=AdaRound)

    def __post_init__(self) -> None:
        for name in ("images", "rows"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")

    def prepare(self, model: nn.Module, input_shape: Sequence[int]) -> "PostTrainingQuantization":
        """Equalise ``model`` in place and keep a float copy of it, before a quantiser is attached.

        Raises:
            ValueError: it is quantised already.
        """
        for name, module in model.named_modules():
            if isinstance(module, FakeQuantize):
                raise ValueError(f"{name}: quantised already; must be a network in float")
        found = chains(model, input_shape)
        pairs = []
        if self.equalize:
            pairs = equalize(model, found)
        reference = copy.deepcopy(model).eval()
        return PostTrainingQuantization(self, found, pairs, reference)


@dataclass
class PostTrainingQuantization:
    """The quantisation of one network: ``calibrate``, then ``run``.

    Attributes:
        settings: what is done.
        chains: layer -> what follows it, in the executed order.
        pairs: the layers that were equalised.
        reference: the network in float.
    """

    settings: PostTraining
    chains: dict[str, Chain]
    pairs: list[tuple[str, str]]
    reference: nn.Module

    @torch.no_grad()
    def calibrate(self, model: nn.Module, batches: Sequence[Tensor]) -> None:
        """Fix the weights' grids, and take the ranges of activations from the float network.

        Raises:
            ValueError: a weight scheme that is not range-linear, or an output that is not finite.
        """
        FixedGrids().attach(model)
        handles = []
        for name, module in model.named_modules():
            for key, watch in (("input_fake_quantize", _watch_input), ("output_fake_quantize", _watch_output)):
                quantizer = getattr(module, key, None)
                if not isinstance(quantizer, ActivationFakeQuantize):
                    continue
                if self.settings.activation_range is not None:
                    quantizer.estimate = self.settings.activation_range
                quantizer.train()
                reference = self.reference.get_submodule(name)
                handles.append(watch(reference, quantizer))
        self._run_reference(batches)
        for handle in handles:
            handle.remove()
        model.eval()

    def _run_reference(self, batches: Sequence[Tensor]) -> None:
        """Show the float network all images.

        Raises:
            ValueError: its output is not finite.
        """
        outputs = FiniteOutputs(self.reference)
        try:
            for images in batches:
                outputs.add(images, self.reference(images))
            outputs.finish()
        except NotFinite as error:
            raise ValueError(
                f"the output of the network in float is not finite, first in {error}; give another checkpoint"
            ) from None

    def layers(self, model: nn.Module) -> tuple[list[str], list[str]]:
        """Layers that are rounded or corrected, in the executed order, and quantised ones that cannot be."""
        quantized = [name for name, layer in model.named_modules() if _is_quantized(layer)]
        able = []
        for name in self.chains:
            if name in quantized and has_rows(self.reference.get_submodule(name)):
                able.append(name)
        unable = [name for name in quantized if name not in able]
        return able, unable

    def run(self, model: nn.Module, batches: Sequence[Tensor], seed: int = 0) -> Iterator[dict[str, Any]]:
        """Round and correct layer after layer, each with what the layers before it have become.

        Args:
            model: quantised and calibrated; changed in place.
            batches: images ``[N, C, H, W]``.
            seed: draws the positions.

        Yields:
            layer, error before and after: ||f(W x) - f(W' x')||^2 over ||f(W x)||^2.

        Raises:
            NotFinite: an error is not.
        """
        generator = torch.Generator().manual_seed(seed)
        images = sum(len(batch) for batch in batches)
        per_image = max(1, self.settings.rows // images)
        able, _ = self.layers(model)
        for name in able:
            rows, quantized_rows = input_rows((self.reference, model), name, batches, per_image, generator)
            errors = self._layer(model, self.chains[name], rows, quantized_rows)
            if not math.isfinite(errors["error"]):
                raise NotFinite(
                    f"{name}: what quantisation changes in its output is {errors['error']}; "
                    "give a network with smaller weights, or leave the layer in float"
                )
            yield {"layer": name} | errors

    def _layer(self, model: nn.Module, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> dict[str, float]:
        """Round and correct one layer, given the rows that it reads in both networks; its error before and after."""
        layer = model.get_submodule(chain.layer)
        reference = self.reference.get_submodule(chain.layer)
        activation = chain.activation or _identity
        with torch.no_grad():
            products = product(rows, reference.weight)
            target = activation(normalised(self.reference, chain)(products))
            size = float(target.square().sum(1).mean()) or 1.0

        def reconstruction() -> Reconstruction:
            # Made anew each time: a corrected bias makes another f.
            with_bias = normalised(model, chain)
            return Reconstruction(quantized_rows, target, lambda products: activation(with_bias(products)))

        @torch.no_grad()
        def relative_error() -> float:
            return float(reconstruction().error(layer.weight)) / size

        before = relative_error()
        parts = effective_weight(layer)
        quantizes_weight = parts is not None and parts.fake_quantize is not None
        if self.settings.adaround is not None and quantizes_weight:
            self.settings.adaround.round(layer, reconstruction())
        if self.settings.correct_bias:
            self._correct_bias(model, chain, rows, quantized_rows)
        return {"error_before": before, "error": relative_error()}

    @torch.no_grad()
    def _correct_bias(self, model: nn.Module, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> None:
        """Take off what quantisation added to the mean of a layer's output."""
        means = []
        for network, its_rows in ((self.reference, rows), (model, quantized_rows)):
            weight = network.get_submodule(chain.layer).weight
            mean = expected_output(weight, its_rows.mean(1))
            means.append(normalised(network, chain)(mean[None])[0])
        in_float, quantized = means
        shift_output(model, chain, in_float - quantized)


def _is_quantized(layer: nn.Module) -> bool:
    """Whether the weight or the input of a compressed layer is quantised."""
    parts = effective_weight(layer)
    if parts is None:
        return False
    return parts.fake_quantize is not None or getattr(layer, "input_fake_quantize", None) is not None


def _identity(x: Tensor) -> Tensor:
    return x


def _watch_input(module: nn.Module, quantizer: FakeQuantize) -> RemovableHandle:
    """Show the module's input to ``quantizer``; the module itself goes on in float."""

    def show(module: nn.Module, inputs: tuple) -> None:
        quantizer(inputs[0])

    return module.register_forward_pre_hook(show)


def _watch_output(module: nn.Module, quantizer: FakeQuantize) -> RemovableHandle:
    """Show the module's output to ``quantizer``; the module itself goes on in float."""

    def show(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        quantizer(output)

    return module.register_forward_hook(show)
