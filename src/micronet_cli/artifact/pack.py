"""A live network to the content of a ``.mnet`` file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from micronet_cli.artifact import format
from micronet_cli.artifact.build import bare_network, most_elements
from micronet_cli.artifact.entries import BATCH_NORM_TENSORS, OPERAND, Activation, Layer, Parameter
from micronet_cli.artifact.live_layer import pack_layer, stored_names
from micronet_cli.artifact.own_state import own_state
from micronet_cli.artifact.packer import Packer
from micronet_cli.functional.fixed_point import ZERO_POINT_BITS, pack_range
from micronet_cli.layers.batch_norm import gain_and_shift, remove_batch_norm
from micronet_cli.layers.copies import copied
from micronet_cli.layers.effective_weight import has_computed_weight, took_standardization
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize
from micronet_cli.layers.finite import is_sound
from micronet_cli.layers.held_codes import at_least_single, range_scale
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.products import OPERANDS
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.batch_norm import batch_norm_pairs
from micronet_cli.trace.observe import observe

QUANTIZER_PLACES = ("input_fake_quantize", "output_fake_quantize")


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
    model = at_least_single(model)
    smallest = _pack(model, header, entropy, plain=False)
    elements = sum(tensor.numel() for tensor in model.parameters())
    readable_elements = most_elements(len(smallest))
    if elements <= readable_elements:
        return smallest
    # Such a small file of so large a network is what a reader takes for an attack.
    return _pack(model, header, entropy=False, plain=True)


def _pack(model: nn.Module, header: Mapping[str, Any], entropy: bool, plain: bool) -> bytes:
    shape = header["input"]["size"]
    live = copied(model).cpu()  # not in float64, where weights next to a tie could have other codes
    packer = Packer(entropy, plain)
    stored = _pack_layers(model, live, shape, packer)
    activations = _pack_activations(live, packer)
    kept_norms = _pack_batch_norms(live, packer)
    for name in kept_norms:
        for key in BATCH_NORM_TENSORS:
            stored.add(f"{name}.{key}")
    parameters = _pack_parameters(live, packer, stored)

    bare = bare_network(header)
    tables = {
        "removed": _removed_batch_norms(bare, live),
        "layers": [entry.to_json() for entry in packer.layers],
        "batch_norms": kept_norms,
        "activations": [_activation_row(entry) for entry in activations],
        "parameters": [_parameter_row(entry) for entry in parameters],
    }
    standardized = _computed_weights(packer.layers, live)
    if standardized:
        tables["standardized"] = standardized
    full_header = dict(header) | tables
    return format.write(full_header, packer.streams, entropy)


def _pack_layers(model: nn.Module, live: nn.Module, shape: Sequence[int], packer: Packer) -> set[str]:
    """Store every layer that is worth it, and take the BatchNorms that folded out of ``live``; names of its state."""
    executed = _executed(model, shape)
    layers = compressible_layers(live)
    linear = {name for name in executed if runs_linear(layers[name])}
    norms: dict[str, str] = {}
    for norm_name, layer_name in batch_norm_pairs(model, shape).items():
        if layer_name in linear:
            norms[layer_name] = norm_name

    stored: set[str] = set()
    for name, layer in layers.items():
        norm = None
        if name in norms:
            norm = live.get_submodule(norms[name])
        computes_with_integers = name in linear
        entry = pack_layer(packer, name, layer, norm, computes_with_integers)
        if entry is None:
            continue
        packer.layers.append(entry)
        for key in stored_names(layer, entry):
            stored.add(f"{name}.{key}")

    for norm_name in norms.values():
        remove_batch_norm(live, norm_name)
    return stored


def _computed_weights(entries: Sequence[Layer], live: nn.Module) -> list[str]:
    """Layers of an architecture that standardises or norms weights which are stored as they are then."""
    layers = compressible_layers(live)
    names = []
    for entry in entries:
        layer = layers[entry.name]
        if took_standardization(layer) or has_computed_weight(layer):
            names.append(entry.name)
    return names


def _executed(model: nn.Module, shape: Sequence[int]) -> set[str]:
    """Layers whose own forward a pass runs: others have their weight read by the module around them."""
    observation = observe(model, shape)
    called = {call.module for call in observation.calls}
    layers = set(compressible_layers(model))
    return called & layers


def _removed_batch_norms(bare: nn.Module, live: nn.Module) -> list[str]:
    """The architecture's BatchNorms that the network does without."""
    left = dict(live.named_modules())
    removed = []
    for name, module in bare.named_modules():
        if not isinstance(module, BatchNorm):
            continue
        if not isinstance(left.get(name), BatchNorm):
            removed.append(name)
    return removed


def _activation_row(entry: Activation) -> list[Any]:
    return [entry.module, entry.place, entry.bits]


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
        if not isinstance(module, BatchNorm):
            continue
        if module.running_mean is None:
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
        carrier, place = _place(name)
        _, own_zero_point = module.qparams()
        zero_point = float(own_zero_point)
        scale = float(range_scale(module, torch.float64))
        usable_scale = np.isfinite(scale) and scale > 0
        zero_codes = 2**ZERO_POINT_BITS
        holds_zero = -zero_codes < zero_point <= 0
        if not usable_scale or not holds_zero:
            raise ValueError(f"{name}: scale {scale} and zero point {zero_point} are not those of a range with 0 in it")
        content = pack_range(scale, int(zero_point))
        packer.streams["activations"].append(content)
        found.append(Activation(carrier, place, module.bits))
    return found


def _place(quantizer: str) -> tuple[str, str]:
    """The module that carries an activation quantiser, and where.

    >>> _place("layer1.0.conv1.input_fake_quantize"), _place("blocks.0.attn.operand_fake_quantize.3")
    (('layer1.0.conv1', 'input'), ('blocks.0.attn', 'operand3'))

    Raises:
        ValueError: it is in another place.
    """
    carrier, _, attribute = quantizer.rpartition(".")
    if attribute in QUANTIZER_PLACES:
        return carrier, attribute.removesuffix("_fake_quantize")
    module, _, holder = carrier.rpartition(".")
    if holder == OPERANDS:
        return module, f"{OPERAND}{attribute}"
    raise ValueError(
        f"{quantizer}: quantisers are packed where they are a layer's input, a module's output or a product's operand"
    )


def _pack_parameters(live: nn.Module, packer: Packer, stored: set[str]) -> list[Parameter]:
    """Store every tensor of the network's state that is not ``stored`` yet, as it is.

    Raises:
        ValueError: a value is not finite.
    """
    quantizers: set[str] = set()
    for name, module in live.named_modules():
        if isinstance(module, ActivationFakeQuantize):
            quantizers.add(name)

    found = []
    for name, tensor in own_state(live).items():
        owner, _, last = name.rpartition(".")
        if name in stored or owner in quantizers:
            continue
        if last == "num_batches_tracked":
            continue
        if not is_sound(name, tensor):
            raise ValueError(f"{name} is not finite")
        if tensor.is_floating_point():
            tensor = tensor.float()
        shape = list(tensor.shape)
        dtype = str(tensor.dtype).removeprefix("torch.")
        entry = Parameter(name, shape, dtype)
        found.append(entry)
        values = tensor.detach().contiguous().numpy()
        packer.streams["parameters"].append(values.tobytes())
    return found
