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
    uses = weight_uses(network)
    stored_by_layer: dict[str, list[int]] = {}
    for index, stored in enumerate(network.stored):
        if stored.name == f"{stored.layer}.weight" and not stored.derived:
            stored_by_layer.setdefault(stored.layer, []).append(index)
    found = set()
    for name, layer in compressible_layers(model).items():
        tied = original_weight(layer) in shared or (layer.bias is not None and layer.bias in shared)
        if tied or not runs_linear(layer):
            continue
        for index in stored_by_layer.get(name, []):
            readers = [network.ops[use] for use in uses.get(index, [])]
            if readers and all(op.dot is not None and op.layer == name for op in readers):
                found.add(name)
    return found
