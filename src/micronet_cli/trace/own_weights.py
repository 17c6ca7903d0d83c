"""Which layers have a weight that can be rescaled: their own, read by their own product, as it is."""

from collections import defaultdict
from collections.abc import Iterable

from torch import Tensor, nn

from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import compressible_layers, shared_parameters
from micronet_cli.trace.records import TracedNetwork


def weight_uses(network: TracedNetwork) -> dict[int, list[int]]:
    """Stored tensor -> operations that read it, as a product's weight or in any other way."""
    uses: defaultdict[int, list[int]] = defaultdict(list)
    for index, op in enumerate(network.ops):
        dot = op.dot
        if dot is not None and dot.weight is not None:
            uses[dot.weight].append(index)
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
    plain_weights = _plain_weights(network)
    found = set()
    for name, layer in compressible_layers(model).items():
        if _is_tied(layer, shared) or not runs_linear(layer):
            continue
        for weight in plain_weights[name]:
            if _only_multiplied_in(name, network, uses.get(weight, ())):
                found.add(name)
    return found


def _plain_weights(network: TracedNetwork) -> defaultdict[str, list[int]]:
    """Layer -> the stored tensors that are its weight as it is."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for index, stored in enumerate(network.stored):
        is_weight = stored.name == f"{stored.layer}.weight"
        if is_weight and not stored.derived:
            found[stored.layer].append(index)
    return found


def _is_tied(layer: nn.Module, shared: set[Tensor]) -> bool:
    """Whether another module has the layer's weight or bias too."""
    if original_weight(layer) in shared:
        return True
    return layer.bias is not None and layer.bias in shared


def _only_multiplied_in(layer: str, network: TracedNetwork, uses: Iterable[int]) -> bool:
    """Whether there are uses of a weight, and all of them are products of this layer."""
    used = False
    for index in uses:
        op = network.ops[index]
        if op.dot is None or op.layer != layer:
            return False
        used = True
    return used
