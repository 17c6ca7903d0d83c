"""A live network to the content of a ``.mnet`` file.

Codes are read from the effective weight in float64, and checked against it; a BatchNorm that follows a layer becomes a
factor and a bias a channel, whatever its sign, so no weight is quantised again.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from micronet_cli.artifact import format
from micronet_cli.artifact.build import bare_network, most_elements
from micronet_cli.artifact.entries import Activation, Layer, Parameter
from micronet_cli.artifact.stored_weights import code_digits, covered, pack_positions, smallest_positions
from micronet_cli.functional.packing import ZERO_POINT_BITS, pack_digits, pack_range, radix_word, to_fixed
from micronet_cli.functional.quantization import quant_max
from micronet_cli.layers.batch_norm import gain_and_shift, remove_batch_norm
from micronet_cli.layers.effective_weight import effective_weight, original_weight
from micronet_cli.layers.fake_quantize import ActivationFakeQuantize, WeightFakeQuantize
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.batch_norm import batch_norm_pairs

# Largest over smallest scale up to which int32 with one exponent takes the place of float32: its error is 2^-32 of the
# largest, which is what a quantiser behind all channels sees, and the smallest channel still has 16 bits.
SCALE_SPREAD = 1 << 16


@dataclass
class _Packer:
    """Entries and streams as they grow."""

    entropy: bool
    plain: bool = False
    layers: list[Layer] = field(default_factory=list)
    streams: dict[str, list[bytes]] = field(default_factory=lambda: {name: [] for name in format.STREAMS})

    def positions(
        self, nonzero: np.ndarray, value_bits: float, fewer_bits: float
    ) -> tuple[tuple[Any, ...], np.ndarray]:
        """Where the non-zeros are, in the smallest form; its bytes go to the stream."""
        chosen = ("mask",) if self.plain else smallest_positions(nonzero, value_bits, fewer_bits)
        cover = covered(chosen, nonzero)
        self.streams["masks"].append(pack_positions(chosen, cover, self.entropy))
        return chosen, cover

    def codes(self, entry: Layer, integers: np.ndarray, zero_codes: np.ndarray) -> Layer:
        """Store integer weights, ``[C_out, ...]``, and the code of 0 of each channel."""
        bits = [_digit_bits(base) for base in (entry.levels, entry.levels - 1)]
        positions, cover = self.positions(integers != 0, *bits)
        entry = replace(entry, positions=positions, zeros=bool((integers[cover] == 0).any()))
        self.streams["codes"].append(pack_digits(code_digits(integers, entry, cover), entry.base, self.entropy))
        if entry.zero_code is None:
            self.streams["offsets"].append(pack_digits(zero_codes, entry.levels, self.entropy))
        return entry

    def floats(self, entry: Layer, weight: np.ndarray) -> Layer:
        """Store a float weight's non-zeros."""
        positions, cover = self.positions(weight != 0, 32, 32)
        self.streams["parameters"].append(weight[cover].astype("<f4").tobytes())
        return replace(entry, positions=positions)

    def numbers(self, scale: np.ndarray | None, bias: np.ndarray | None) -> dict[str, Any]:
        """Store what a layer is rescaled by; fields of its entry."""
        fields: dict[str, Any] = {}
        if scale is not None:
            magnitude = np.abs(scale[scale != 0])
            fixed = not magnitude.size or magnitude.max() <= SCALE_SPREAD * magnitude.min()
            stored, exponent = to_fixed(scale) if fixed else (scale.astype("<f4"), None)
            self.streams["scales"].append(stored.astype("<i4" if fixed else "<f4").tobytes())
            fields = {"scales": scale.size, "scale_exponent": exponent}
        if bias is not None:
            stored, fields["bias_exponent"] = to_fixed(bias)
            self.streams["scales"].append(stored.astype("<i4").tobytes())
        return fields


def _digit_bits(base: int) -> float:
    digits, bits = radix_word(base)
    return bits / digits


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
    model = copy.deepcopy(model).eval()
    content = _pack(model, header, entropy, plain=False)
    elements = sum(tensor.numel() for tensor in model.parameters())
    if elements > most_elements(len(content)):  # what a reader takes for an attack
        content = _pack(model, header, entropy=False, plain=True)
    return content


def _pack(model: nn.Module, header: Mapping[str, Any], entropy: bool, plain: bool) -> bytes:
    shape = header["input"]["size"]
    live = copy.deepcopy(model).double().cpu()
    executed = _executed(model, shape)
    layers = compressible_layers(live)
    linear = {name for name, layer in layers.items() if runs_linear(layer) and name in executed}
    norms = {layer: norm for norm, layer in batch_norm_pairs(model, shape).items() if layer in linear}
    packer = _Packer(entropy, plain)
    consumed: set[str] = set()
    for name, layer in layers.items():
        norm = live.get_submodule(norms[name]) if name in norms else None
        entry = _pack_layer(packer, name, layer, norm, integer=name in linear)
        if entry is not None:
            packer.layers.append(entry)
            consumed |= {f"{name}.{key}" for key in _stored_names(layer, entry)}
    bare = bare_network(header)
    for norm_name in norms.values():
        remove_batch_norm(live, norm_name)
    activations = _activations(live, packer)
    kept = _batch_norms(live, packer)
    consumed |= {f"{name}.{key}" for name in kept for key in ("weight", "bias", "running_mean", "running_var")}
    parameters = _parameters(live, packer, consumed)
    removed = [
        n for n, m in bare.named_modules() if isinstance(m, BatchNorm) and not isinstance(_at(live, n), BatchNorm)
    ]
    full = dict(header) | {
        "removed": removed,
        "layers": [entry.to_json() for entry in packer.layers],
        "batch_norms": kept,
        "activations": [list(asdict(entry).values()) for entry in activations],
        "parameters": [[p.name, list(p.shape), *([p.dtype] if p.dtype != "float32" else [])] for p in parameters],
    }
    return format.write(full, packer.streams, entropy)


def _at(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _executed(model: nn.Module, shape: Sequence[int]) -> set[str]:
    """Layers whose own forward a pass runs: others have their weight read by the module around them."""
    seen: set[str] = set()
    handles = [
        layer.register_forward_hook(lambda *_, name=name: seen.add(name))
        for name, layer in compressible_layers(model).items()
    ]
    try:
        parameter = next(model.parameters())
        model(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _pack_layer(packer: _Packer, name: str, layer: nn.Module, norm: nn.Module | None, integer: bool) -> Layer | None:
    """Store a layer's weight and what follows it; None where it is as good as any other parameter."""
    effective = effective_weight(layer)
    quantizer = None if effective is None else effective.fake_quantize
    weight: Tensor = layer.weight.detach()
    if not torch.isfinite(weight).all():
        raise ValueError(f"layer {name}: its weight is not finite")
    entry = Layer(name, masked=effective is not None and effective.mask is not None)
    gain, bias = None, None if layer.bias is None else layer.bias.detach().numpy()
    if norm is not None:
        gain, shift = (t.numpy() for t in gain_and_shift(norm))
        bias = shift if bias is None else shift + gain * bias
    if bias is not None and not np.isfinite(bias).all():
        raise ValueError(f"layer {name}: its bias is not finite")
    if quantizer is None:
        if norm is None and not entry.masked and 32 * int((weight == 0).sum()) <= weight.numel():
            return None
        entry = packer.floats(entry, weight.numpy())
        gain = None if gain is None else _of_used_channels(gain, weight)
        return replace(entry, **packer.numbers(gain, bias if norm is not None else None))
    assert effective is not None
    scale, zero_point = effective.qparams(original_weight(layer).detach())
    integers, zero_codes = _integers(name, weight, scale, zero_point, quantizer)
    stored = quantizer.qparams_bits(weight.shape) > 32 * quantizer.ranges(weight.shape)
    entry = replace(
        entry,
        bits=quantizer.bits,
        levels=max(2, int((integers + _spread(zero_codes, integers)).max()) + 1, int(zero_codes.max()) + 1),
        per_tensor=quantizer.granularity == "per_tensor",
        zero_code=None if stored else int(zero_codes[0]),
    )
    entry = packer.codes(entry, integers, zero_codes)
    step = (1 / scale).reshape(-1).numpy()
    factor = _of_used_channels(step if gain is None else step * gain, weight)
    numbers = packer.numbers(factor, bias if integer else None)
    return replace(entry, integer=integer, **numbers)


def _of_used_channels(scale: np.ndarray, weight: Tensor) -> np.ndarray:
    """Scales ``[C_out]`` or ``[1]``; that of a channel of zeros, which is arbitrary, is taken from another channel.

    The largest one sets the resolution of all, so it had better be one that is used.
    """
    used = weight.flatten(1).any(1).numpy()
    if scale.size == 1 or not used.any():
        return scale
    return np.where(used, scale, np.abs(scale[used]).min())


def _spread(zero_codes: np.ndarray, integers: np.ndarray) -> np.ndarray:
    return zero_codes.reshape(-1, *(1,) * (integers.ndim - 1))


def _integers(
    name: str, weight: Tensor, scale: Tensor, zero_point: Tensor, quantizer: WeightFakeQuantize
) -> tuple[np.ndarray, np.ndarray]:
    """Integers of the effective weight, and codes of 0 (``[C_out]`` or ``[1]``), checked.

    Raises:
        ValueError: they do not give the weight back.
    """
    scaled = weight * scale
    integers = torch.round(scaled)
    codes = integers - zero_point
    largest = codes.max() if quantizer.levels == 2 else quant_max(quantizer.bits)  # binary: codes 0 and 2
    if (scaled - integers).abs().max() > 1e-3 or codes.min() < 0 or codes.max() > largest:
        raise ValueError(f"layer {name}: {type(quantizer).__name__}'s codes do not give the effective weight")
    zero_codes = (-zero_point).reshape(-1).to(torch.int64).numpy()
    if zero_codes.min() < 0:
        raise ValueError(f"layer {name}: {type(quantizer).__name__} has a positive zero point")
    return integers.to(torch.int64).numpy(), zero_codes


def _stored_names(layer: nn.Module, entry: Layer) -> list[str]:
    """Names of the tensors that an entry stands for, relative to the layer."""
    own = [key for key in layer.state_dict() if key == "weight" or key.startswith("parametrizations.weight.")]
    return [*own, "bias"] if entry.rescaled else own


def _batch_norms(live: nn.Module, packer: _Packer) -> list[str]:
    """Store every BatchNorm that did not fold as a gain and a shift a channel."""
    kept = [n for n, m in live.named_modules() if isinstance(m, BatchNorm) and m.running_mean is not None]
    for name in kept:
        numbers = torch.cat(gain_and_shift(live.get_submodule(name)))
        if not torch.isfinite(numbers).all():
            raise ValueError(f"{name}: its gain or shift is not finite")
        packer.streams["scales"].append(numbers.numpy().astype("<f4").tobytes())
    return kept


def _activations(live: nn.Module, packer: _Packer) -> list[Activation]:
    """Store every activation quantiser: a float64 scale whose lowest 16 bits are the code of 0."""
    found = []
    for name, module in live.named_modules():
        if not isinstance(module, ActivationFakeQuantize):
            continue
        parent, _, attribute = name.rpartition(".")
        place = attribute.removesuffix("_fake_quantize")
        if attribute not in ("input_fake_quantize", "output_fake_quantize"):
            raise ValueError(f"{name}: quantisers are packed where they are a layer's input or a module's output")
        scale, zero_point = (float(t) for t in module.qparams())
        if not (np.isfinite(scale) and scale > 0 and -(2**ZERO_POINT_BITS) < zero_point <= 0):
            raise ValueError(f"{name}: scale {scale} and zero point {zero_point} are not those of a range with 0 in it")
        packer.streams["activations"].append(pack_range(scale, int(zero_point)))
        found.append(Activation(parent, place, module.bits))
    return found


def _parameters(live: nn.Module, packer: _Packer, consumed: set[str]) -> list[Parameter]:
    """Store every other tensor of the network's state as it is."""
    quantizers = {n for n, m in live.named_modules() if isinstance(m, ActivationFakeQuantize)}
    found = []
    for name, tensor in live.state_dict().items():
        owner, _, last = name.rpartition(".")
        if name in consumed or owner in quantizers or last == "num_batches_tracked":
            continue
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} is not finite")
            tensor = tensor.float()
        entry = Parameter(name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        packer.streams["parameters"].append(tensor.contiguous().numpy().tobytes())
        found.append(entry)
    return found
