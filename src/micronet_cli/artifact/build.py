"""The header's network, built within bounds and only by timm's constructors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from micronet_cli.artifact.entries import check, is_count
from micronet_cli.artifact.format import Damaged
from micronet_cli.artifact.header import described
from micronet_cli.compression.pruning.removal import Removal
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models.model import Model
from micronet_cli.models.own import OwnModel
from micronet_cli.torch_internals import BatchNorm, buffers_of, parameters_of

MAX_ELEMENTS_A_BYTE = 256  # of the network over the file's size
FREE_ELEMENTS = 1 << 28  # of any network: one that lost most channels is built before they are taken out


def most_elements(file_bytes: int) -> int:
    """Elements of the largest network that a file of this size is trusted with.

    >>> most_elements(1000) == FREE_ELEMENTS, most_elements(1 << 22)
    (True, 1073741824)
    """
    return max(FREE_ELEMENTS, int(MAX_ELEMENTS_A_BYTE * file_bytes))


def bare_network(
    header: Mapping[str, Any],
    tensors: int | None = None,
    elements: int | None = None,
    trust: Sequence[str] | None = None,
) -> nn.Module:
    """The network of ``header["model"]`` without values: on the meta device, not yet loaded or changed.

    Args:
        header: as in a file.
        tensors: the most parameters and buffers it may have, None: any number.
        elements: the most elements in them.
        trust: packages that the header may name beside micronet; None: any, for it is not from a file.

    Raises:
        Damaged: the header names none, another kind of thing, or a larger one.
    """
    model = described(header, trust)
    with torch.device("meta"), _bounded(tensors, elements):
        return built(model, header)


def built(model: Model | OwnModel, header: Mapping[str, Any]) -> nn.Module:
    """The network with random values, where the default device is.

    Raises:
        Damaged: timm does not take the arguments.
    """
    try:
        network = model.build(len(header["classes"]))
    except Damaged:
        raise
    except Exception as error:  # whatever arguments from a file do to a constructor
        raise Damaged(f"header: model: {model.name} cannot be built ({str(error)[:200]})") from None
    _take_out(network, header.get("channels", []))
    return network


def _take_out(model: nn.Module, removals: Any) -> None:
    """Take out the channels that the packed network did without.

    Raises:
        Damaged: the network has no such layer, or the layer no such channels.
    """
    check(isinstance(removals, list), "channels: must be a list")
    for removal in removals:
        _check_removal(model, removal)
        try:
            Removal(**removal).attach(model)
        except (ValueError, AttributeError, TypeError, LookupError, RuntimeError) as error:
            raise Damaged(f"header: channels: {str(error)[:200]}") from None


def _check_removal(model: nn.Module, removal: Any) -> None:
    is_removal = isinstance(removal, dict) and set(removal) == {"outputs", "inputs"}
    is_removal = is_removal and all(isinstance(part, dict) for part in removal.values())
    check(is_removal, "channels: other fields than a removal")
    layers = set(compressible_layers(model))
    layers.update(name for name, module in model.named_modules() if isinstance(module, BatchNorm))
    for part in removal.values():
        for layer, channels in part.items():
            check(layer in layers, f"channels: {layer!r:.80} is no layer of the network")
            are_channels = isinstance(channels, list) and all(is_count(channel) for channel in channels)
            check(are_channels, f"channels: {layer!r:.80}: not numbers of channels")


@contextmanager
def _bounded(tensor_limit: int | None, element_limit: int | None) -> Iterator[None]:
    """Stop a constructor that registers more than this."""
    tensors = 0
    elements = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal tensors, elements
        if tensor is not None:
            # A spectral norm writes over its vectors again and again.
            if parameters_of(module).get(name) is None and buffers_of(module).get(name) is None:
                tensors += 1
            elements += tensor.numel()
        too_many = tensor_limit is not None and tensors > tensor_limit
        too_large = element_limit is not None and elements > element_limit
        if too_many or too_large:
            raise Damaged("header: model: a far larger network than the file holds")

    handles = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
