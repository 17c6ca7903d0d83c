"""The first convolution of a network: made from weights for colours where its images have other channels."""

import logging

from timm.models import adapt_input_conv
from torch import Tensor, nn

from micronet_cli.models.classifier import State

log = logging.getLogger(__name__)
COLOURS = 3


def with_stem_of(model: nn.Module, state: State, source: str) -> dict[str, Tensor]:
    """``state`` with first convolutions that take the network's channels, as timm makes them for ``pretrained``.

    Grey gets the sum over the colours; of other channels each gets a colour's, all scaled by 3 over their number.

    Args:
        model: the network; timm's record names its first convolutions.
        state: weights, under the network's names.
        source: of the weights, as ``key=value``.
    """
    own = model.state_dict()
    adapted = dict(state)
    for layer in first_convolutions(model):
        name = f"{layer}.weight"
        if name not in own or name not in state:
            continue
        given = state[name]
        needed = own[name]
        channels = needed.shape[1]
        is_of_colours = given.dim() == 4 and given.shape[1] == COLOURS
        if not is_of_colours or channels == COLOURS:
            continue
        if given.shape[2:] != needed.shape[2:]:
            continue
        adapted[name] = adapt_input_conv(channels, given)
        key = source.partition("=")[0]
        log.info("%s: %s takes %d channels, the network %d: it is adapted", key, layer, COLOURS, channels)
    return adapted


def first_convolutions(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that take the images, as timm's record of the network says."""
    record = getattr(model, "pretrained_cfg", None) or {}
    names = record.get("first_conv") or ()
    if isinstance(names, str):
        return (names,)
    return tuple(names)
