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


def stream_bytes(content: bytes) -> dict[str, dict[str, int]]:
    """Stream -> its bytes in the file, and raw, before the entropy coder."""
    _, raw = read(content)
    return {
        name: {"bytes": size, "raw_bytes": len(raw.get(name, b"x" * size))} for name, size in sizes(content).items()
    }


def layer_bytes(content: bytes, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Layer -> raw bytes of its positions, of its codes or float values, and of its scales and bias.

    Args:
        content: the file's.
        model: the network loaded from it.
    """
    header, _ = read(content)
    layers = compressible_layers(model)
    found = {}
    for entry in parse(Layer, header["layers"], "layers"):
        weight = original_weight(layers[entry.name])
        cover = int(covered(entry.positions, weight.detach().numpy() != 0).sum())
        whole = "codes" in header["coded"]
        values = 4 * cover if entry.bits is None else packed_bytes(cover, entry.base, whole)
        numbers = 4 * (entry.scales + (weight.shape[0] if entry.bias_exponent is not None else 0))
        found[entry.name] = {
            "elements": weight.numel(),
            "nonzeros": int(weight.count_nonzero()),
            "positions": " ".join(map(str, entry.positions)),
            "levels": entry.levels if entry.bits is not None else None,
            "position_bytes": positions_bytes(entry.positions, weight.shape, whole),
            "value_bytes": values,
            "scale_bytes": numbers,
        }
    return found


def certificate(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Layer -> accumulator widths that its weights and inputs need, over its output channels, and where it is exact."""
    return {
        name: {
            "min_bits": int(widths.min()),
            "mean_bits": float(widths.mean()),
            "max_bits": int(widths.max()),
            "exact_in": str(quantizer.dtype).removeprefix("torch."),
        }
        for name, widths in certified_widths(model).items()
        if (quantizer := integer_input(model.get_submodule(name))) is not None
    }
