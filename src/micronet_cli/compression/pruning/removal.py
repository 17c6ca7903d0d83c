"""Physical removal: channels that a network computes for nothing are taken out, and its outputs stay what they were."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micronet_cli.layers.effective_weight import original_weight
from micronet_cli.torch_internals import buffers_of, parameters_of

# Dimensions of a weight, [C_out, C_in / groups, ...].
OUTPUTS = 0
INPUTS = 1


@dataclass(frozen=True)
class Removal:
    """Channels that go. Attached like any other compressor, so that a checkpoint replays it and loads strictly.

    Attributes:
        outputs: convolution, linear layer or BatchNorm -> numbers of its output channels that go. Those of a depthwise
            convolution take the inputs with them.
        inputs: convolution or linear layer -> numbers of its input channels that go.
    """

    outputs: Mapping[str, Sequence[int]]
    inputs: Mapping[str, Sequence[int]]

    @property
    def reads_gradients(self) -> bool:
        """False: nothing is trained."""
        return False

    @torch.no_grad()
    def attach(self, model: nn.Module) -> None:
        """Take the channels out.

        Raises:
            ValueError: the network has no such layer, or the layer no such channel.
        """
        for name, gone in self.outputs.items():
            layer = _layer_of(model, name)
            take_out(layer, OUTPUTS, gone, name)
        for name, gone in self.inputs.items():
            layer = _layer_of(model, name)
            take_out(layer, INPUTS, gone, name)

    def update(self, step: int, total_steps: int) -> bool:
        """Nothing changes during training."""
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> how many of its output channels went."""
        table: dict[str, dict[str, object]] = {}
        for name, gone in self.outputs.items():
            table[name] = {"removed_channels": len(gone)}
        return table


def removed_channels(compressors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ``outputs`` and ``inputs`` of every removal among a network's compressors, given by their configs."""
    target = f"{Removal.__module__}.{Removal.__qualname__}"
    channels = []
    for config in compressors:
        if config["_target_"] == target:
            channels.append({key: config[key] for key in ("outputs", "inputs")})
    return channels


def _layer_of(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ValueError(f"removal: the network has no layer {name}") from None


def take_out(layer: nn.Module, dim: int, gone: Sequence[int], name: str) -> None:
    """Drop channels ``gone`` of a layer's weight along ``dim`` (0: outputs, 1: inputs), and of all that goes with it.

    Whatever has the weight's shape (masks, accumulated scores) is cut like it, and whatever has one value for each
    output channel (bias, running statistics, steps and ranges) along the outputs.
    """
    shape = original_weight(layer).shape
    channels = shape[dim]
    for number in gone:
        if not 0 <= number < channels:
            raise ValueError(
                f"removal: {name} has {channels} channels along dimension {dim}, which {list(gone)} exceed"
            )
    kept = set(range(channels)) - set(gone)
    kept_numbers = torch.tensor(sorted(kept), dtype=torch.int64)
    for tensors in _tensors_of(layer):
        for key, tensor in tensors.items():
            if tensor is not None and _goes_with(tensor, shape, dim):
                tensors[key] = _cut(tensor, dim, kept_numbers)
    for attribute in _sizes(layer, dim):
        setattr(layer, attribute, len(kept))


def _tensors_of(layer: nn.Module) -> Iterator[dict[str, Any]]:
    """The parameters and the buffers of a layer and of what is attached to it, by name."""
    for module in layer.modules():
        yield parameters_of(module)
        yield buffers_of(module)


def _goes_with(tensor: Tensor, shape: torch.Size, dim: int) -> bool:
    """Whether a tensor beside a weight of this shape is cut with it."""
    if tensor.shape == shape:
        return True
    if dim != OUTPUTS:
        return False
    if tensor.dim() == 0:
        return False
    # One value a channel: [C_out], or that with dimensions of size 1 behind it.
    channels = shape[OUTPUTS]
    return len(tensor) == tensor.numel() == channels


def _cut(tensor: Tensor, dim: int, kept: Tensor) -> Tensor:
    numbers = kept.to(tensor.device)
    part = tensor.detach().index_select(dim, numbers)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(part, tensor.requires_grad)
    return part


def _sizes(layer: nn.Module, dim: int) -> tuple[str, ...]:
    """The layer's attributes that state its channels along ``dim``."""
    if hasattr(layer, "num_features"):
        return ("num_features",)
    is_linear = isinstance(layer, nn.Linear)
    if dim == INPUTS:
        return ("in_features",) if is_linear else ("in_channels",)
    if is_linear:
        return ("out_features",)
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels
    if is_depthwise and layer.groups > 1:
        return ("out_channels", "in_channels", "groups")
    return ("out_channels",)
