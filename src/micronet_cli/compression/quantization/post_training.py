"""Quantisation after training, from a few images without labels: ranges, biases, rounding."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.compression.quantization.adaround import AdaRound, Reconstruction
from micronet_cli.compression.quantization.equalization import batch_norm_of, equalize
from micronet_cli.compression.quantization.fixed_grid import FixedGrids
from micronet_cli.functional.calibration import RangeEstimate, mse
from micronet_cli.functional.equalization import expected_output
from micronet_cli.layers.batch_norm import gain_and_shift
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, FakeQuantize
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
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is wanted")

    def prepare(self, model: nn.Module, input_shape: Sequence[int]) -> "PostTrainingPass":
        """Equalise ``model`` in place and keep a float copy of it, before a quantiser is attached.

        Raises:
            ValueError: it is quantised already.
        """
        if name := next((name for name, module in model.named_modules() if isinstance(module, FakeQuantize)), None):
            raise ValueError(f"{name}: quantised already; a network in float is wanted")
        found = chains(model, input_shape)
        pairs = equalize(model, found) if self.equalize else []
        return PostTrainingPass(self, found, pairs, copy.deepcopy(model).eval())


@dataclass
class PostTrainingPass:
    """One network's way through quantisation.

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
            ValueError: a weight scheme that is not range-linear.
        """
        FixedGrids().attach(model)
        handles = []
        for name, module in model.named_modules():
            for key, watch in (("input_fake_quantize", _watch_input), ("output_fake_quantize", _watch_output)):
                quantizer = getattr(module, key, None)
                if isinstance(quantizer, ActivationFakeQuantize):
                    quantizer.estimate = self.settings.activation_range or quantizer.estimate
                    handles.append(watch(self.reference.get_submodule(name), quantizer.train()))
        for images in batches:
            self.reference(images)
        for handle in handles:
            handle.remove()
        model.eval()

    def layers(self, model: nn.Module) -> tuple[list[str], list[str]]:
        """Layers that are rounded or corrected, in the executed order, and quantised ones that cannot be."""
        quantized = [name for name, layer in model.named_modules() if _is_quantized(layer)]
        able = [name for name in self.chains if name in quantized and has_rows(self.reference.get_submodule(name))]
        return able, [name for name in quantized if name not in able]

    def run(self, model: nn.Module, batches: Sequence[Tensor], seed: int = 0) -> Iterator[dict[str, Any]]:
        """Round and correct layer after layer, each with what the layers before it have become.

        Args:
            model: quantised and calibrated; changed in place.
            batches: images ``[N, C, H, W]``.
            seed: draws the positions.

        Yields:
            layer, error before and after: ||f(W x) - f(W' x')||^2 over ||f(W x)||^2.
        """
        settings, generator = self.settings, torch.Generator().manual_seed(seed)
        per_image = max(1, settings.rows // sum(map(len, batches)))
        for name in self.layers(model)[0]:
            rows = input_rows((self.reference, model), name, batches, per_image, generator)
            yield {"layer": name} | self._layer(model, self.chains[name], *rows)

    def _layer(self, model: nn.Module, chain: Chain, rows: Tensor, quantized_rows: Tensor) -> dict[str, float]:
        settings, layer = self.settings, model.get_submodule(chain.layer)
        reference = self.reference.get_submodule(chain.layer)
        activation = chain.activation or _identity
        with torch.no_grad():
            target = activation(_normalised(self.reference, chain)(product(rows, reference.weight)))
        size = float(target.square().sum(1).mean()) or 1.0

        def reconstruction() -> Reconstruction:
            # A corrected bias makes another f.
            normalised = _normalised(model, chain)
            return Reconstruction(quantized_rows, target, lambda made: activation(normalised(made)))

        with torch.no_grad():
            before = float(reconstruction().error(layer.weight)) / size
        parts = effective_weight(layer)
        if settings.adaround is not None and parts is not None and parts.fake_quantize is not None:
            settings.adaround.round(layer, reconstruction())
        with torch.no_grad():
            if settings.correct_bias:
                wanted = _normalised(self.reference, chain)(expected_output(reference.weight, rows.mean(1))[None])
                made = _normalised(model, chain)(expected_output(layer.weight, quantized_rows.mean(1))[None])
                _shift(model, chain, (wanted - made)[0])
            return {"error_before": before, "error": float(reconstruction().error(layer.weight)) / size}


def _is_quantized(layer: nn.Module) -> bool:
    parts = effective_weight(layer)
    return parts is not None and (
        parts.fake_quantize is not None or getattr(layer, "input_fake_quantize", None) is not None
    )


def _normalised(model: nn.Module, chain: Chain) -> Callable[[Tensor], Tensor]:
    """A layer's products ``[n, C_out]`` -> with bias and BatchNorm, as they are now."""
    layer, norm = model.get_submodule(chain.layer), batch_norm_of(model, chain)
    gain, shift = (torch.ones(()), torch.zeros(())) if norm is None else gain_and_shift(norm)
    bias = torch.zeros(()) if layer.bias is None else layer.bias.detach()
    device, kind = layer.weight.device, layer.weight.dtype
    gain, shift = gain.to(device, kind), (shift.to(device) + bias.to(device) * gain.to(device)).to(kind)
    return lambda made: made * gain + shift


def _shift(model: nn.Module, chain: Chain, change: Tensor) -> None:
    """Add ``change`` ``[C_out]`` to what a layer and its BatchNorm give."""
    layer, norm = model.get_submodule(chain.layer), batch_norm_of(model, chain)
    if norm is not None:
        gain = gain_and_shift(norm)[0].to(change.dtype)
        change = torch.where(gain != 0, change / torch.where(gain != 0, gain, 1), 0)
    if layer.bias is not None:
        layer.bias.add_(change)
    elif norm is not None:
        norm.running_mean.sub_(change)


def _identity(x: Tensor) -> Tensor:
    return x


def _watch_input(module: nn.Module, quantizer: FakeQuantize) -> Any:
    return module.register_forward_pre_hook(lambda m, inputs: (quantizer(inputs[0]), None)[1])


def _watch_output(module: nn.Module, quantizer: FakeQuantize) -> Any:
    return module.register_forward_hook(lambda m, inputs, output: (quantizer(output), None)[1])
