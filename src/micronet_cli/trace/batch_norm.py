"""Which BatchNorms fold into the product before them: the packer, the folder and the scorer all ask here."""

from collections import defaultdict
from collections.abc import Sequence

from torch import nn

from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.channels import RELAYS, Channels, Readers, through
from micronet_cli.trace.kinds import BATCH_NORMS
from micronet_cli.trace.observe import observe
from micronet_cli.trace.own_weights import own_weights, weight_uses
from micronet_cli.trace.records import TracedNetwork

NORM_CHANNELS = 1  # the dimension that BatchNorm takes for the channels


def normalised_products(network: TracedNetwork) -> dict[int, int]:
    """Product with a weight -> the BatchNorm that alone reads it, channel by channel; both as indices of operations."""
    readers = Readers(network)
    found = {}
    for index, op in enumerate(network.ops):
        if op.dot is None or op.dot.weight is None:
            continue
        channels = through(network, op, op.dot.channel_dim)
        norm = _norm_behind(network, readers, channels)
        if norm is not None:
            found[index] = norm
    return found


def _norm_behind(network: TracedNetwork, readers: Readers, channels: Channels) -> int | None:
    while True:
        index = readers.sole(channels.value)
        if index is None:
            return None
        reader = network.ops[index]
        dim = channels.dim_in(reader.reads[0])
        if dim is None:
            return None
        if reader.kind in BATCH_NORMS and dim == NORM_CHANNELS:
            return index
        if reader.kind not in RELAYS:
            return None
        channels = through(network, reader, dim)


def folding_norms(network: TracedNetwork) -> dict[int, int]:
    """BatchNorm -> the product whose weight takes its gain and whose bias takes its shift, as indices of operations.

    One folds where it alone reads the product, channel by channel, every time that either is executed, and where
    the weight is stored as it is used: a standardised weight would standardise the gain away, and one that another
    operation reads too would change there.
    """
    product_of = {}
    for product, norm in normalised_products(network).items():
        product_of[norm] = product
    uses = weight_uses(network)
    found: dict[int, int] = {}
    for executions in _executions_of_norms(network):
        products = [product_of[norm] for norm in executions if norm in product_of]
        if len(products) < len(executions):
            continue
        weight = _only_weight(network, products)
        if weight is None or network.stored[weight].derived:
            continue
        if sorted(uses[weight]) != sorted(products):
            continue
        for norm, product in zip(executions, products, strict=True):
            found[norm] = product
    return found


def _executions_of_norms(network: TracedNetwork) -> list[list[int]]:
    """For every BatchNorm, told apart by its vectors, the operations that execute it."""
    executions: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, op in enumerate(network.ops):
        if op.kind in BATCH_NORMS:
            executions[op.parameters].append(index)
    return list(executions.values())


def _only_weight(network: TracedNetwork, products: list[int]) -> int | None:
    """The one stored weight that all of these products read; None where they read several or none."""
    weights = set()
    for product in products:
        dot = network.ops[product].dot
        assert dot is not None
        weights.add(dot.weight)
    if len(weights) != 1:
        return None
    return weights.pop()


def batch_norm_pairs(model: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """BatchNorm -> the convolution or linear layer it folds into, by name, in the executed order.

    Of the BatchNorms that fold (``folding_norms``) those are named whose layer is a plain product that can be written
    anew (``own_weights``). The network is left as it was.

    Args:
        model: any network.
        input_shape: (channels, height, width).
    """
    network = observe(model, input_shape)
    layers = own_weights(network, model)
    pairs = {}
    product_of = folding_norms(network)
    for norm in sorted(product_of):
        norm_name = network.ops[norm].layer
        norm_module = model.get_submodule(norm_name)
        layer_name = network.ops[product_of[norm]].layer
        if layer_name in layers and isinstance(norm_module, BatchNorm):
            pairs[norm_name] = layer_name
    return pairs
