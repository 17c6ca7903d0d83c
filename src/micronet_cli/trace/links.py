"""Which channels of which layers are the same ones, so that they can only be taken out together.

Every convolution and linear layer labels its output channels, and the labels go with the data: operations that move it
move them likewise, element-wise ones tie the labels of their operands, reductions those that they reduce over. What an
operation of any other kind reads cannot be taken out, and neither can what meets a parameter or a constant of its size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from micronet_cli.layers.plain_product import runs_linear
from micronet_cli.layers.rules import shared_parameters
from micronet_cli.layers.standardized import standardizes
from micronet_cli.torch_internals import BatchNorm, tree_leaves
from micronet_cli.trace.channel_labels import along
from micronet_cli.trace.labeller import Labeller


@dataclass(frozen=True)
class Side:
    """The output or the input channels of a layer.

    Attributes:
        layer: its name: a convolution, linear layer or BatchNorm. A depthwise convolution and a BatchNorm have outputs
            alone, which take their inputs with them.
        is_output: its output channels, else its input channels.
        channels: a number for each channel. Those with the same number, here and elsewhere, go together; those with
            ``FIXED`` stay.
    """

    layer: str
    is_output: bool
    channels: tuple[int, ...]


@torch.no_grad()
def channel_links(model: nn.Module, input_shape: Sequence[int]) -> list[Side]:
    """The layers' channels and which of them go together, as one image is evaluated.

    Args:
        model: in evaluation mode, on the CPU, without parametrizations; left as it was.
        input_shape: (channels, height, width).
    """
    labeller = Labeller()
    layers = _Layers(labeller)
    handles = list(layers.watch(model))
    parameter = next(model.parameters())
    image = torch.rand(1, *input_shape, dtype=parameter.dtype)
    try:
        with labeller:
            returned = model(image)
    finally:
        for handle in handles:
            handle.remove()
    labeller.fix(tree_leaves(returned))
    numbers = labeller.ties.classes()
    sides = []
    for (layer, is_output), labels in layers.sides.items():
        channels = numbers[labels].tolist()
        sides.append(Side(layer, is_output, tuple(channels)))
    return sides


class _Layers:
    """Labels what layers give, and notes what they read.

    Attributes:
        sides: (layer, whether it is its outputs) -> labels of the channels.
    """

    def __init__(self, labeller: Labeller) -> None:
        self.labeller = labeller
        self.sides: dict[tuple[str, bool], Tensor] = {}

    def watch(self, model: nn.Module) -> Iterator[RemovableHandle]:
        """Listen to the layers whose channels can be taken out; handles of the hooks."""
        shared = shared_parameters(model)
        for name, module in model.named_modules():
            own_parameters = module.parameters(recurse=False)
            if _is_layer(module) and shared.isdisjoint(own_parameters):
                yield module.register_forward_pre_hook(self._enter)
                yield module.register_forward_hook(self._leaver(name))

    def _enter(self, layer: nn.Module, inputs: tuple) -> None:
        self.labeller.paused = True

    def _leaver(self, name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def leave(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.labeller.paused = False
            self._through(name, layer, inputs[0], output)

        return leave

    def _through(self, name: str, layer: nn.Module, source: Tensor, output: Tensor) -> None:
        channel_dim = 1
        if isinstance(layer, nn.Linear):
            channel_dim = -1
        read = self._read(source, channel_dim)
        if isinstance(layer, BatchNorm) or _is_depthwise(layer):
            given = read
        elif getattr(layer, "groups", 1) > 1:
            given = None
        elif standardizes(layer):
            # Without an input channel the others would be standardised in another way; output channels stand alone.
            self.labeller.fix([source])
            given = self._outputs_of(name, output.size(channel_dim))
        else:
            if read is not None:
                self._at_side(name, False, read)
            given = self._outputs_of(name, output.size(channel_dim))
        if given is None:
            self.labeller.fix([source], [output])
            return
        self._at_side(name, True, given)
        self.labeller.label(output, given, channel_dim)

    def _read(self, source: Tensor, channel_dim: int) -> Tensor | None:
        """The labels of a layer's input channels; None, and fixed, where they differ along another dimension too."""
        labels = self.labeller.labels_of(source)
        if labels is None:
            return None
        channels = along(labels, channel_dim, source.size(channel_dim))
        if channels is None:
            self.labeller.fix([source])
        return channels

    def _outputs_of(self, layer: str, channels: int) -> Tensor:
        given = self.sides.get((layer, True))
        if given is None:
            given = self.labeller.ties.new(channels)
        return given

    def _at_side(self, layer: str, is_output: bool, labels: Tensor) -> None:
        # A layer that is executed again has the same channels as before.
        before = self.sides.setdefault((layer, is_output), labels)
        if before is not labels:
            self.labeller.ties.tie(before, labels)


def _is_layer(module: nn.Module) -> bool:
    """Whether the module is a layer whose channels can be taken out."""
    if isinstance(module, BatchNorm) or standardizes(module):
        return True
    return isinstance(module, nn.Conv2d | nn.Linear) and runs_linear(module)


def _is_depthwise(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return False
    return layer.groups == layer.in_channels == layer.out_channels > 1
