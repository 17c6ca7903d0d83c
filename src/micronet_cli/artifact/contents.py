"""What is in a packed file: bytes by stream and layer, and the accumulators' certificate."""

from typing import Any

from torch import nn

from micronet_cli.artifact.entries import Layer, parse
from micronet_cli.artifact.format import read, sizes
from micronet_cli.artifact.stored_weights import covered, positions_bytes
from micronet_cli.functional.packing import packed_bytes
from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.layers.integer import certified_widths, integer_input
from micronet_cli.layers.rules import compressible_layers

NUMBER_BYTES = 4  # of a float value, a scale or a bias


def stream_bytes(content: bytes) -> dict[str, dict[str, int]]:
    """Stream -> its bytes in the file, and raw, before the entropy coder."""
    _, raw_streams = read(content)
    found = {}
    for name, size in sizes(content).items():
        raw_size = size
        if name in raw_streams:  # not the container, the header and the digest
            raw_size = len(raw_streams[name])
        found[name] = {"bytes": size, "raw_bytes": raw_size}
    return found


def layer_bytes(content: bytes, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Layer -> raw bytes of its positions, of its codes or float values, and of its scales and bias.

    Args:
        content: the file's.
        model: the network loaded from it.
    """
    header, _ = read(content)
    layers = compressible_layers(model)
    whole_bytes = "codes" in header["coded"]
    return {
        entry.name: _bytes_of_layer(entry, layers[entry.name], whole_bytes)
        for entry in parse(Layer, header["layers"], "layers")
    }


def _bytes_of_layer(entry: Layer, layer: nn.Module, whole_bytes: bool) -> dict[str, Any]:
    weight = original_weight(layer)
    nonzero = weight.detach().numpy() != 0
    cover = int(covered(entry.positions, nonzero).sum())
    if entry.bits is None:
        levels = None
        value_bytes = NUMBER_BYTES * cover
    else:
        levels = entry.levels
        value_bytes = packed_bytes(cover, entry.base, whole_bytes)
    numbers = entry.scales
    if entry.bias_exponent is not None:
        numbers += weight.shape[0]
    return {
        "elements": weight.numel(),
        "nonzeros": int(nonzero.sum()),
        "positions": " ".join(map(str, entry.positions)),
        "levels": levels,
        "position_bytes": positions_bytes(entry.positions, weight.shape, whole_bytes),
        "value_bytes": value_bytes,
        "scale_bytes": NUMBER_BYTES * numbers,
    }


def certificate(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Layer -> accumulator widths that its weights and inputs need, over its output channels, and where it is exact."""
    found = {}
    for name, widths in certified_widths(model).items():
        quantizer = integer_input(model.get_submodule(name))
        assert quantizer is not None
        found[name] = {
            "min_bits": int(widths.min()),
            "mean_bits": float(widths.mean()),
            "max_bits": int(widths.max()),
            "exact_in": str(quantizer.dtype).removeprefix("torch."),
        }
    return found
