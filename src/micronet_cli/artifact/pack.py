"""A live network to the content of a ``.mnet`` file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from micronet_cli.artifact import format
from micronet_cli.artifact.build import bare_network, most_elements
from micronet_cli.artifact.entries import Activation, Parameter
from micronet_cli.artifact.live_layer import pack_layer, stored_names
from micronet_cli.artifact.packer import Packer
from micronet_cli.functional.packing import ZERO_POINT_BITS, pack_range
from micronet_cli.layers.batch_norm import gain_and_shift, remove_batch_norm
from micronet_cli.layers.copies import copied
from micronet_cli.layers.effective_weight import effective_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.batch_norm import batch_norm_pairs
from micronet_cli.trace.observe import observe

# What a BatchNorm that stays is stored as: a gain and a shift stand for all four.
BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


@torch.no_grad()
def pack(model: nn.Module, header: Mapping[str, Any], entropy: bool = False) -> bytes:
    """The file's content.

    Args:
        model: a network of timm with micronet's compressors attached; it is left as it was.
        header: ``model`` (config), ``classes``, ``input``, ``data`` and whatever else is to be told.
        entropy: entropy-code weights and masks.

    Raises:
        ValueError: the network holds what the format does not: values that are not finite, a quantiser whose codes do
            not give the effective weight, activation quantisers in other places than in front of or behind a module.
    """
    model = copied(model).eval()
    content = _pack(model, header, entropy, plain=False)
    elements = sum(tensor.numel() for tensor in model.parameters())
    if elements > most_elements(len(content)):  # what a reader takes for an attack
        content = _pack(model, header, entropy=False, plain=True)
    return content


def _pack(model: nn.Module, header: Mapping[str, Any], entropy: bool, plain: bool) -> bytes:
    shape = header["input"]["size"]
    live = copied(model).double().cpu()
    executed = _executed(model, shape)
    layers = compressible_layers(live)
    linear = {name for name in executed if runs_linear(layers[name])}
    norms = {}
    for norm_name, layer_name in batch_norm_pairs(model, shape).items():
        if layer_name in linear:
            norms[layer_name] = norm_name

    packer = Packer(entropy, plain)
    stored: set[str] = set()
    for name, layer in layers.items():
        norm = live.get_submodule(norms[name]) if name in norms else None
        entry = pack_layer(packer, name, layer, norm, integer=name in linear)
        if entry is not None:
            packer.layers.append(entry)
            stored.update(f"{name}.{key}" for key in stored_names(layer, entry))

    for norm_name in norms.values():
        remove_batch_norm(live, norm_name)
    activations = _pack_activations(live, packer)
    kept_norms = _pack_batch_norms(live, packer)
    for name in kept_norms:
        stored.update(f"{name}.{key}" for key in BATCH_NORM_TENSORS)
    parameters = _pack_parameters(live, packer, stored)

    standardized = _standardized(layers)
    full_header = dict(header) | {
        "removed": _removed_batch_norms(bare_network(header), live),
        "layers": [entry.to_json() for entry in packer.layers],
        "batch_norms": kept_norms,
        "activations": [[entry.module, entry.place, entry.bits] for entry in activations],
        "parameters": [_parameter_row(entry) for entry in parameters],
    }
    if standardized:
        full_header["standardized"] = standardized
    return format.write(full_header, packer.streams, entropy)


def _standardized(layers: Mapping[str, nn.Module]) -> list[str]:
    """Layers of an architecture that standardises weights which are stored as they are then."""
    names = []
    for name, layer in layers.items():
        parts = effective_weight(layer)
        if parts is not None and parts.standardization is not None:
            names.append(name)
    return names


def _executed(model: nn.Module, shape: Sequence[int]) -> set[str]:
    """Layers whose own forward a pass runs: others have their weight read by the module around them."""
    called = {call.module for call in observe(model, shape).calls}
    return called & set(compressible_layers(model))


def _removed_batch_norms(bare: nn.Module, live: nn.Module) -> list[str]:
    """The architecture's BatchNorms that the network does without."""
    left = dict(live.named_modules())
    removed = []
    for name, module in bare.named_modules():
        if isinstance(module, BatchNorm) and not isinstance(left.get(name), BatchNorm):
            removed.append(name)
    return removed


def _parameter_row(entry: Parameter) -> list[Any]:
    row: list[Any] = [entry.name, list(entry.shape)]
    if entry.dtype != "float32":
        row.append(entry.dtype)
    return row


def _pack_batch_norms(live: nn.Module, packer: Packer) -> list[str]:
    """Store every BatchNorm that did not fold as a gain and a shift a channel; their names.

    Raises:
        ValueError: a number is not finite.
    """
    kept = []
    for name, module in live.named_modules():
        if not isinstance(module, BatchNorm) or module.running_mean is None:
            continue
        numbers = torch.cat(gain_and_shift(module))
        if not torch.isfinite(numbers).all():
            raise ValueError(f"{name}: its gain or shift is not finite")
        packer.append("scales", numbers.numpy(), "<f4")
        kept.append(name)
    return kept


def _pack_activations(live: nn.Module, packer: Packer) -> list[Activation]:
    """Store every activation quantiser: a float64 scale whose lowest 16 bits are the code of 0.

    Raises:
        ValueError: a quantiser in another place, or one whose range does not hold 0.
    """
    found = []
    for name, module in live.named_modules():
        if not isinstance(module, ActivationFakeQuantize):
            continue
        carrier, _, attribute = name.rpartition(".")
        if attribute not in ("input_fake_quantize", "output_fake_quantize"):
            raise ValueError(f"{name}: quantisers are packed where they are a layer's input or a module's output")
        scale, zero_point = (float(value) for value in module.qparams())
        usable_scale = np.isfinite(scale) and scale > 0
        holds_zero = -(2**ZERO_POINT_BITS) < zero_point <= 0
        if not usable_scale or not holds_zero:
            raise ValueError(f"{name}: scale {scale} and zero point {zero_point} are not those of a range with 0 in it")
        content = pack_range(scale, int(zero_point))
        packer.streams["activations"].append(content)
        place = attribute.removesuffix("_fake_quantize")
        found.append(Activation(carrier, place, module.bits))
    return found


def _pack_parameters(live: nn.Module, packer: Packer, stored: set[str]) -> list[Parameter]:
    """Store every tensor of the network's state that is not ``stored`` yet, as it is.

    Raises:
        ValueError: a value is not finite.
    """
    quantizers = {name for name, module in live.named_modules() if isinstance(module, ActivationFakeQuantize)}
    found = []
    for name, tensor in live.state_dict().items():
        owner, _, last = name.rpartition(".")
        if name in stored or owner in quantizers or last == "num_batches_tracked":
            continue
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} is not finite")
            tensor = tensor.float()
        dtype = str(tensor.dtype).removeprefix("torch.")
        found.append(Parameter(name, list(tensor.shape), dtype))
        content = tensor.contiguous().numpy().tobytes()
        packer.streams["parameters"].append(content)
    return found
