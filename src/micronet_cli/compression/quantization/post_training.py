"""Quantisation after training, from a few images without labels: ranges, biases, rounding."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.compression.quantization.adaround import AdaRound, Reconstruction
from micronet_cli.compression.quantization.equalization import equalize
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.compression.quantization.layer_output import normalised, shift_output
from micronet_cli.compression.quantization.operand_ranges import operands_shown
from micronet_cli.functional.calibration import RangeEstimate, mse
from micronet_cli.functional.equalization import expected_output
from micronet_cli.layers.copies import copied
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
from micronet_cli.layers.finite import FiniteOutputs, NotFinite
from micronet_cli.layers.layer_input import watch_input
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
        reference = copied(model).eval()
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
            handles += self._watch(name, module)
        with operands_shown(model, self.reference, self._started):
            self._run_reference(batches)
        for handle in handles:
            handle.remove()
        model.eval()

    def _watch(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        """Show a module's quantisers what the module of the float network reads and gives, which goes on in float."""
        handles = []
        reads = self._started(module, "input_fake_quantize")
        if reads is not None:
            reference = self.reference.get_submodule(name)
            handle = watch_input(reference, _show_to(reads))
            handles.append(handle)
        gives = self._started(module, "output_fake_quantize")
        if gives is not None:
            reference = self.reference.get_submodule(name)
            show = _show_output_to(gives)
            handle = reference.register_forward_hook(show)
            handles.append(handle)
        return handles

    def _started(self, module: nn.Module, key: str) -> ActivationFakeQuantize | None:
        """The module's quantiser under that name, made to track what it is shown; None where it tracks no range."""
        quantizer = getattr(module, key, None)
        if not isinstance(quantizer, ActivationFakeQuantize):
            return None
        estimate = self.settings.activation_range
        if estimate is not None:
            quantizer.estimate = estimate
        quantizer.train()
        return quantizer

    def _run_reference(self, batches: Sequence[Tensor]) -> None:
        """Show the float network all images.

        Raises:
            ValueError: its output is not finite.
        """
        outputs = FiniteOutputs(self.reference)
        try:
            for images in batches:
                logits = self.reference(images)
                outputs.add(images, logits)
            outputs.finish()
        except NotFinite as error:
            raise ValueError(
                f"the output of the network in float is not finite, first in {error}; give another checkpoint"
            ) from None

    def layers(self, model: nn.Module) -> tuple[list[str], list[str]]:
        """Layers that are rounded or corrected, in the executed order, and quantised ones that cannot be."""
        quantized = []
        for name, layer in model.named_modules():
            if _is_quantized(layer):
                quantized.append(name)
        able = []
        for name in self.chains:
            reference = self.reference.get_submodule(name)
            if name in quantized and has_rows(reference):
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
        per_image = self.settings.rows // images
        per_image = max(1, per_image)
        networks = (self.reference, model)
        able, _ = self.layers(model)
        for name in able:
            rows, quantized_rows = input_rows(networks, name, batches, per_image, generator)
            errors = self._layer(model, self.chains[name], rows, quantized_rows)
            error = errors["error"]
            if not math.isfinite(error):
                raise NotFinite(
                    f"{name}: what quantisation changes in its output is {error}; "
                    "give a network with smaller weights, or leave the layer in float"
                )
            yield {"layer": name} | errors

    def _layer(self, model: nn.Module, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> dict[str, float]:
        """Round and correct one layer, given the rows that it reads in both networks; its error before and after."""
        layer = model.get_submodule(chain.layer)
        activation = chain.activation or _identity
        target = self._target(chain, rows)
        squared_lengths = target.square().sum(1)
        size = float(squared_lengths.mean()) or 1.0

        def reconstruction() -> Reconstruction:
            # Made anew each time: a corrected bias makes another f.
            with_bias = normalised(model, chain)

            def finish(products: Tensor) -> Tensor:
                output = with_bias(products)
                return activation(output)

            return Reconstruction(quantized_rows, target, finish)

        @torch.no_grad()
        def relative_error() -> float:
            error = reconstruction().error(layer.weight)
            return float(error) / size

        before = relative_error()
        adaround = self.settings.adaround
        if adaround is not None and _quantizes_weight(layer):
            adaround.round(layer, reconstruction())
        if self.settings.correct_bias:
            self._correct_bias(model, chain, rows, quantized_rows)
        return {"error_before": before, "error": relative_error()}

    @torch.no_grad()
    def _target(self, chain: Chain, rows: Tensor) -> Tensor:
        """What follows from a layer's rows in the float network, behind its activation function."""
        layer = self.reference.get_submodule(chain.layer)
        activation = chain.activation or _identity
        products = product(rows, layer.weight)
        with_bias = normalised(self.reference, chain)
        output = with_bias(products)
        return activation(output)

    @torch.no_grad()
    def _correct_bias(self, model: nn.Module, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> None:
        """Take off what quantisation added to the mean of a layer's output."""
        in_float = _mean_output(self.reference, chain, rows)
        quantized = _mean_output(model, chain, quantized_rows)
        change = in_float - quantized
        shift_output(model, chain, change)


def _mean_output(network: nn.Module, chain: Chain, rows: Tensor) -> Tensor:
    """The mean over the rows of a layer's output behind its bias and BatchNorm, ``[C_out]``."""
    layer = network.get_submodule(chain.layer)
    mean_row = rows.mean(1)
    products = expected_output(layer.weight, mean_row)
    with_bias = normalised(network, chain)
    (mean,) = with_bias(products[None])
    return mean


def _is_quantized(layer: nn.Module) -> bool:
    """Whether the weight or the input of a compressed layer is quantised."""
    if effective_weight(layer) is None:
        return False
    if _quantizes_weight(layer):
        return True
    return getattr(layer, "input_fake_quantize", None) is not None


def _quantizes_weight(layer: nn.Module) -> bool:
    parts = effective_weight(layer)
    if parts is None:
        return False
    return parts.fake_quantize is not None


def _identity(x: Tensor) -> Tensor:
    return x


def _show_to(quantizer: FakeQuantize) -> Callable[[Tensor], None]:
    """What shows ``quantizer`` a tensor."""

    def show(x: Tensor) -> None:
        quantizer(x)

    return show


def _show_output_to(quantizer: FakeQuantize) -> Callable[[nn.Module, tuple, Tensor], None]:
    """Forward hook that shows ``quantizer`` the module's output."""

    def show(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        quantizer(output)

    return show
