"""Physical removal: channels that a network computes for nothing are taken out, and its outputs stay what they were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
        for dim, channels in ((OUTPUTS, self.outputs), (INPUTS, self.inputs)):
            for name, gone in channels.items():
                try:
                    layer = model.get_submodule(name)
                except AttributeError:
                    raise ValueError(f"removal: the network has no layer {name}") from None
                take_out(layer, dim, gone, name)

    def update(self, step: int, total_steps: int) -> bool:
        """Nothing changes during training."""
        return True

    def table(self, model: nn.Module) -> dict[str, dict[str, object]]:
        """Layer -> how many of its output channels went."""
        return {name: {"removed_channels": len(gone)} for name, gone in self.outputs.items()}


def take_out(layer: nn.Module, dim: int, gone: Sequence[int], name: str) -> None:
    """Drop channels ``gone`` of a layer's weight along ``dim`` (0: outputs, 1: inputs), and of all that goes with it.

    Whatever has the weight's shape (masks, accumulated scores) is cut like it, and whatever has one value for each
    output channel (bias, running statistics, steps and ranges) along the outputs.
    """
    shape = original_weight(layer).shape
    if not all(0 <= number < shape[dim] for number in gone):
        raise ValueError(f"removal: {name} has {shape[dim]} channels along dimension {dim}, which {list(gone)} exceed")
    kept = torch.tensor(sorted(set(range(shape[dim])) - set(gone)))
    for module in layer.modules():
        for tensors in (parameters_of(module), buffers_of(module)):
            for key, tensor in tensors.items():
                if tensor is None:
                    continue
                one_a_channel = dim == OUTPUTS and _is_one_a_channel(tensor, shape[OUTPUTS])
                if tensor.shape == shape or one_a_channel:
                    tensors[key] = _cut(tensor, dim, kept)
    for attribute in _sizes(layer, dim):
        setattr(layer, attribute, len(kept))


def _is_one_a_channel(tensor: Tensor, channels: int) -> bool:
    """Whether the tensor is [C_out], or that with dimensions of size 1 behind it."""
    return tensor.dim() > 0 and len(tensor) == tensor.numel() == channels


def _cut(tensor: Tensor, dim: int, kept: Tensor) -> Tensor:
    part = tensor.detach().index_select(dim, kept.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(part, tensor.requires_grad)
    return part


def _sizes(layer: nn.Module, dim: int) -> tuple[str, ...]:
    """The layer's attributes that state its channels along ``dim``."""
    if hasattr(layer, "num_features"):
        return ("num_features",)
    if isinstance(layer, nn.Linear):
        return ("out_features",) if dim == OUTPUTS else ("in_features",)
    if dim == INPUTS:
        return ("in_channels",)
    if layer.groups == layer.in_channels == layer.out_channels > 1:
        return ("out_channels", "in_channels", "groups")
    return ("out_channels",)
