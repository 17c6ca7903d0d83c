"""Networks without parametrisations: the weight that a layer computes with becomes its own."""

from collections.abc import Collection

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from micronet_cli.torch_internals import unparametrized


def give_plain_weights(model: nn.Module, layers: Collection[nn.Module] | None = None) -> dict[str, nn.Module]:
    """Put a plain layer in the place of each parametrised one, be it by masks, quantisers, norms or several of them.

    Args:
        model: changed; what it computes in evaluation stays.
        layers: those of its layers that are replaced; None: all.

    Returns:
        name -> the layer that was there, as it was.
    """
    taken: dict[str, nn.Module] = {}
    plain_layers: dict[nn.Module, nn.Module] = {}
    # A layer that several modules hold is replaced in each of them.
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if not is_parametrized(layer):
            continue
        if layers is not None and layer not in layers:
            continue
        if layer not in plain_layers:
            plain_layers[layer] = unparametrized(layer)
            taken[name] = layer
        model.set_submodule(name, plain_layers[layer])
    return taken
