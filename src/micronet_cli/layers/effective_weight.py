"""The effective weight of a layer: mask first, then fake-quantise; before both what the layer standardised.

``layer.weight`` of a compressed layer is the value the network computes with, everywhere: training, evaluation,
scoring, export. The trainable tensor behind it is ``layer.parametrizations.weight.original``.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from micronet_cli.layers.fake_quantize import WeightFakeQuantize
from micronet_cli.layers.standardized import MARK, Standardization, take_standardization
from micronet_cli.torch_internals import parameters_of


class EffectiveWeight(nn.Module):
    """Parametrization of ``weight``.

    One module holds both parts, so that mask comes before quantiser whichever was attached first, and the names in a
    checkpoint do not depend on that order.

    Attributes:
        mask: bool tensor of the weight's shape (True = kept), or None.
        fake_quantize: the weight's quantiser, or None.
        standardization: what is made of the weight first, None: nothing.
    """

    mask: Tensor | None
    fake_quantize: WeightFakeQuantize | None

    def __init__(self, standardization: Standardization | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", None)
        self.fake_quantize = None
        self.standardization = standardization
        if standardization is not None:
            device = standardization.layer.weight.device
            self.register_buffer(MARK, torch.ones((), dtype=torch.bool, device=device))

    @property
    def took_standardization(self) -> bool:
        """Whether the layer standardised its weight itself before."""
        return hasattr(self, MARK)

    def forward(self, weight: Tensor) -> Tensor:
        """``weight -> standardised -> masked -> fake-quantised``, shape unchanged."""
        weight = self.masked(weight)
        if self.fake_quantize is None:
            return weight
        return self.fake_quantize(weight)

    def qparams(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of the quantiser on the original ``weight``; see ``WeightFakeQuantize.qparams``."""
        assert self.fake_quantize is not None
        return self.fake_quantize.qparams(self.masked(weight))

    def masked(self, weight: Tensor) -> Tensor:
        """What the quantiser gets of the original ``weight``: standardised if the layer does that, zero by the mask."""
        if self.standardization is not None:
            weight = self.standardization(weight)
        if self.mask is None:
            return weight
        return weight * self.mask


def effective_weight(layer: nn.Module) -> EffectiveWeight | None:
    """The layer's parametrization, None where its weight is plain."""
    if not is_parametrized(layer, "weight"):
        return None
    for parametrization in layer.parametrizations["weight"]:
        if isinstance(parametrization, EffectiveWeight):
            return parametrization
    return None


def attach_effective_weight(layer: nn.Module) -> EffectiveWeight:
    """The layer's parametrization, registered first where it has none.

    Raises:
        ValueError: something else makes the weight before every call.
    """
    found = effective_weight(layer)
    if found is not None:
        return found
    if not is_parametrized(layer, "weight") and "weight" not in parameters_of(layer):
        raise ValueError(
            "its weight is made by a hook (torch.nn.utils.weight_norm or spectral_norm), which would undo this; "
            "norms of torch.nn.utils.parametrizations can be compressed"
        )
    registered = EffectiveWeight(take_standardization(layer))
    # unsafe: skips a trial run of the (shape-preserving) parametrization.
    register_parametrization(layer, "weight", registered, unsafe=True)
    return registered


def original_weight(layer: nn.Module) -> Tensor:
    """The trainable tensor behind ``layer.weight``; of a weight that several make (weight_norm) what they make."""
    if effective_weight(layer) is None:
        return cast(Tensor, layer.weight)
    chain = layer.parametrizations["weight"]
    if not chain.is_tensor:
        return incoming_weight(layer)
    return cast(Tensor, chain.original)


def incoming_weight(layer: nn.Module) -> Tensor:
    """What the layer's ``EffectiveWeight`` gets: the trainable tensor, or what a norm in front of it makes."""
    chain = layer.parametrizations["weight"]
    if chain.is_tensor:
        made = [chain.original]
    else:
        made = [getattr(chain, f"original{number}") for number in range(chain.ntensors)]
    for part in chain:
        if isinstance(part, EffectiveWeight):
            break
        made = [part(*made)]
    return cast(Tensor, made[0])


@torch.no_grad()
def keep_standardized(layer: nn.Module) -> None:
    """Standardise the weight of a compressed layer now, and not before every call."""
    parts = effective_weight(layer)
    if parts is None or parts.standardization is None:
        return
    chain = layer.parametrizations["weight"]
    # What another parametrisation makes cannot be written.
    if not chain.is_tensor or len(chain) > 1:
        return
    standardized = parts.standardization(chain.original)
    chain.original.copy_(standardized)
    # Its mark stays: in a checkpoint it says how the layer was built.
    parts.standardization = None


def took_standardization(layer: nn.Module) -> bool:
    """Whether the layer standardised its weight itself before it was masked or quantised."""
    weight = effective_weight(layer)
    return weight is not None and weight.took_standardization


def has_computed_weight(layer: nn.Module) -> bool:
    """Whether the layer's weight is made of other tensors, by a norm say, so that none can be written in its place."""
    if not is_parametrized(layer, "weight"):
        return "weight" not in parameters_of(layer)
    weight = effective_weight(layer)
    if weight is not None and weight.standardization is not None:
        return True
    return is_normed(layer)


def is_normed(layer: nn.Module) -> bool:
    """Whether another parametrisation than an ``EffectiveWeight``, a norm say, has part in the layer's weight."""
    if not is_parametrized(layer, "weight"):
        return False
    return any(not isinstance(part, EffectiveWeight) for part in layer.parametrizations["weight"])


def check_zero(quantizer: WeightFakeQuantize | None) -> None:
    """Raises ValueError where ``quantizer`` has no level for a mask's zeros."""
    if quantizer is None or quantizer.has_zero:
        return
    scheme = type(quantizer).__name__
    raise ValueError(f"a masked layer needs a level for 0, which {scheme} lacks; ternary has one")


def mask_of(layer: nn.Module) -> Tensor:
    """The mask of a layer that has one: bool, of the weight's shape, True = kept."""
    weight = effective_weight(layer)
    assert weight is not None
    assert weight.mask is not None
    return weight.mask


def attach_mask(layer: nn.Module) -> EffectiveWeight:
    """The layer's parametrization with a mask, all kept where there was none.

    Raises:
        ValueError: the layer's quantiser has no level for a mask's zeros.
    """
    weight = attach_effective_weight(layer)
    check_zero(weight.fake_quantize)
    if weight.mask is None:
        weight.mask = torch.ones_like(original_weight(layer), dtype=torch.bool)
    return weight
