"""Which layers have a weight that can be rescaled: their own, read by their own product, as it is."""

from collections import defaultdict

from torch import nn

from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import compressible_layers, shared_parameters
from micronet_cli.trace.records import TracedNetwork


def weight_uses(network: TracedNetwork) -> dict[int, list[int]]:
    """Stored tensor -> operations that read it, as a product's weight or in any other way."""
    uses: defaultdict[int, list[int]] = defaultdict(list)
    for index, op in enumerate(network.ops):
        if op.dot is not None and op.dot.weight is not None:
            uses[op.dot.weight].append(index)
        for parameter in op.parameters:
            uses[parameter].append(index)
    return uses


def own_weights(network: TracedNetwork, model: nn.Module) -> set[str]:
    """Names of the layers whose output is linear in a weight that is theirs alone.

    A layer is left out where its weight is standardised or otherwise computed before it is used, where another module
    has the weight or the bias too, where an operation outside the layer reads the weight, or where the layer's forward
    is not the plain product.
    """
    shared = shared_parameters(model)
    layers = compressible_layers(model)
    uses = weight_uses(network)
    found = set()
    for index, stored in enumerate(network.stored):
        layer = layers.get(stored.layer)
        if layer is None or stored.derived or stored.name != f"{stored.layer}.weight" or not runs_linear(layer):
            continue
        tied = original_weight(layer) in shared or (layer.bias is not None and layer.bias in shared)
        readers = [network.ops[use] for use in uses[index]]
        if readers and not tied and all(op.dot is not None and op.layer == stored.layer for op in readers):
            found.add(stored.layer)
    return found
