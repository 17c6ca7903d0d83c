"""Where values that are not finite begin: looked for once an output shows that there are any."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original")


class NotFinite(ValueError):
    """An output of a network is not finite; the message says where that begins."""


class NotFiniteValues(ValueError):
    """What a layer has gathered is not finite.

    Attributes:
        layer: the module.
        what: in plain words, plural.
    """

    def __init__(self, layer: nn.Module, what: str) -> None:
        super().__init__(f"{what} of a layer are not finite")
        self.layer = layer
        self.what = what


class FiniteOutputs:
    """Looks at a network's outputs, batch by batch.

    A batch's output is looked at once the next batch has been computed, so that no batch waits for a GPU.

    Args:
        model: the network; it runs once more, in the mode it is in, where an output is not finite.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._images: Tensor | None = None
        self._is_finite = torch.ones((), dtype=torch.bool)

    def add(self, images: Tensor, values: Tensor) -> None:
        """Note what came of a batch; the one before it is looked at.

        Raises:
            NotFinite: it was not finite.
        """
        self.finish()
        self._images = images
        self._is_finite = values.isfinite().all()

    def finish(self) -> None:
        """Look at the last batch.

        Raises:
            NotFinite: it was not finite.
        """
        if self._images is None:
            return
        if not self._is_finite:
            raise NotFinite(non_finite_source(self.model, self._images))
        self._images = None


def non_finite_source(model: nn.Module, images: Tensor) -> str:
    """The images themselves, or the first layer whose output is not finite, by running ``images`` once more.

    As a message says it: "layer conv1, whose weight is not finite".
    """
    if not images.isfinite().all():
        return "the images themselves"
    name = first_non_finite(model, images)
    if name is None:
        return "the objective (every layer's output is finite)"
    if not name:
        return "the network's last operation"
    layer = model.get_submodule(name)
    spoilt = non_finite_state(layer)
    if spoilt is None:
        return f"layer {name}"
    return f"layer {name}, whose {spoilt} is not finite"


@torch.no_grad()
def first_non_finite(model: nn.Module, images: Tensor) -> str | None:
    """Name of the first module whose output is not finite, the innermost one; None where all are."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if not is_finite(output):
                found.append(name)

        return hook

    handles = []
    for name, module in model.named_modules():
        # What makes a layer's weight is the layer's.
        owner, _, _ = name.partition(".parametrizations")
        handles.append(module.register_forward_hook(watch(owner)))
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return None
    return found[0]


def non_finite_state(module: nn.Module) -> str | None:
    """The first parameter or buffer of a module that is not finite, as ``weight`` or ``running_var``."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not is_sound(name, tensor):
            return plain_name(name)
    return None


def is_sound(name: str, tensor: Tensor, values: Tensor | None = None) -> bool:
    """Whether a tensor of a network's state holds what it may: finite numbers.

    Buffers beside a layer's weights may be infinite too, as the limits of a clamp or the masks of attention are.

    Args:
        name: in the network's state.
        tensor: itself, a ``Parameter`` where it is one.
        values: to be put into it; None: those that it has.
    """
    if values is None:
        values = tensor
    _, _, last = name.rpartition(".")
    is_statistic = last in ("running_mean", "running_var")
    if isinstance(tensor, nn.Parameter) or is_statistic:
        return bool(values.isfinite().all())
    return not values.isnan().any()


def plain_name(name: str) -> str:
    """A parameter's name as it is without masks and quantisers.

    >>> plain_name("conv1.parametrizations.weight.original")
    'conv1.weight'
    """
    return _PARAMETRIZED.sub(r"\1", name)


def name_of(model: nn.Module, module: nn.Module) -> str:
    """The name that a module of ``model`` has in it."""
    names = {own: name for name, own in model.named_modules()}
    return names[module]


def is_finite(output: Any) -> bool:
    """Whether all numbers of a tensor, or of the tensors in a list or tuple, are finite."""
    if isinstance(output, Tensor):
        return bool(output.isfinite().all())
    if isinstance(output, list | tuple):
        return all(is_finite(part) for part in output)
    return True
