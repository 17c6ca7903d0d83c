"""Which masks and quantisers do something: those whose zeros, grid or codes reach a product."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from micronet_cli.layers.effective_weight import EffectiveWeight, effective_weight
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.trace.records import Stored, TracedNetwork
from micronet_cli.trace.trace import Trace


@dataclass(frozen=True)
class Effects:
    """Names of what works: layers whose mask or weight quantiser a product sees, quantisers that are called.

    Attributes:
        masks: layers; the zeros of the mask are zeros of a product's weight.
        weights: layers; the quantiser's output is a product's weight.
        quantizers: every quantiser that was executed.
        others: modules that are no compressible layer and have a product's weight -> its share of all such weights.
        float_products: modules that multiply, otherwise than as a layer, an operand that is not quantised.
    """

    masks: frozenset[str]
    weights: frozenset[str]
    quantizers: frozenset[str]
    others: dict[str, float]
    float_products: tuple[str, ...] = ()


def effects(model: nn.Module, input_shape: Sequence[int]) -> Effects:
    """Read them from one forward pass in which every mask drops every other weight; the model is left as it was.

    Args:
        model: with its compressors attached.
        input_shape: (channels, height, width).

    Raises:
        ValueError: the network reads the value of a tensor in Python.
    """
    compressed = _compressed_weights(model)
    with _every_other_weight_dropped(compressed):
        network = Trace(model, input_shape).read()
        masks = set()
        weights = set()
        for index in network.weights:
            row = network.stored[index]
            parts = compressed.get(row.layer)
            if parts is None:
                continue
            if parts.mask is not None and _has_zeros_of(row, parts.mask):
                masks.add(row.layer)
            has_own_quantizer = parts.fake_quantize is not None
            if has_own_quantizer and row.quantizer not in (None, row.name):
                weights.add(row.layer)
    return Effects(
        masks=frozenset(masks),
        weights=frozenset(weights),
        quantizers=frozenset(network.quantizers),
        others=_others(model, network),
        float_products=_float_products(model, network),
    )


def _others(model: nn.Module, network: TracedNetwork) -> dict[str, float]:
    layers = compressible_layers(model)
    rows = [network.stored[index] for index in network.weights]
    total = sum(row.elements for row in rows)
    shares: dict[str, float] = {}
    for row in rows:
        if row.layer not in layers:
            shares[row.layer] = shares.get(row.layer, 0.0) + row.elements / total
    return shares


def _float_products(model: nn.Module, network: TracedNetwork) -> tuple[str, ...]:
    """Modules, but convolutions and linear layers, with a product of which an operand is in float."""
    layers = compressible_layers(model)
    found: dict[str, None] = {}
    for op in network.ops:
        if op.dot is None or op.layer in layers:
            continue
        quantized = [network.values[value].quantizers is not None for value in op.inputs]
        if op.dot.weight is not None:
            quantized.append(network.stored[op.dot.weight].quantizer is not None)
        if not all(quantized):
            found[op.layer] = None
    return tuple(found)


def _compressed_weights(model: nn.Module) -> dict[str, EffectiveWeight]:
    found = {}
    for name, layer in compressible_layers(model).items():
        parts = effective_weight(layer)
        if parts is not None:
            found[name] = parts
    return found


@contextmanager
def _every_other_weight_dropped(compressed: Mapping[str, EffectiveWeight]) -> Iterator[None]:
    own_masks: list[tuple[EffectiveWeight, Tensor]] = []
    for parts in compressed.values():
        mask = parts.mask
        if mask is None:
            continue
        own_masks.append((parts, mask))
        numbers = torch.arange(mask.numel(), device=mask.device)
        every_other = numbers % 2 == 0
        parts.mask = every_other.view(mask.shape)
    try:
        yield
    finally:
        for parts, mask in own_masks:
            parts.mask = mask


def _has_zeros_of(row: Stored, mask: Tensor) -> bool:
    """Whether a product's weight has the zeros of the mask behind it."""
    # Without values it has them, unless something else was made of the masked weight.
    if mask.is_meta or row.nonzeros == 0:
        return row.name == f"{row.layer}.weight"
    kept = int(mask.count_nonzero())
    return row.nonzeros <= kept
