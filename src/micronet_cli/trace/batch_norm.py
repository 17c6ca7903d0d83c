"""BatchNorm folded into the layer before it (Jacob et al., arXiv 1712.05877, section 3.2)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import timm.layers
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from micronet_cli.layers.effective_weight import effective_weight, original_weight
from micronet_cli.layers.fake_quantize import attach_output_fake_quantize
from micronet_cli.layers.rules import compressible_layers, shared_parameters
from micronet_cli.trace.execution import Execution

BatchNorm = nn.modules.batchnorm._BatchNorm
# What follows a layer can be merged with its weight where the output is linear in it: these compute just that.
LINEAR_FORWARDS = (
    nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward, nn.Linear.forward, timm.layers.Conv2dSame.forward,
    timm.layers.Linear.forward,
)  # fmt: skip


def runs_linear(layer: nn.Module) -> bool:
    """Whether the layer's forward is the plain product with its weight."""
    return type(layer).forward in LINEAR_FORWARDS


def batch_norm_pairs(model: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """BatchNorm -> the convolution or linear layer it folds into, by name, in the executed order.

    One folds where its input is a layer's output that nothing else reads, unquantised, both are executed once, and the
    layer is a plain product with a weight of its own. The network is run on one image of zeros to see that; it is left
    as it was.

    Args:
        model: any network.
        input_shape: (channels, height, width).
    """
    with _Execution(model) as seen:
        parameter = next(model.parameters())
        model(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    shared = shared_parameters(model)

    def fits(layer: nn.Module, norm: nn.Module) -> bool:
        weight = original_weight(layer)
        return runs_linear(layer) and weight not in shared and len(weight) == norm.num_features

    return {
        norm: layer
        for norm, made in seen.inputs.items()
        if (layer := seen.layers.get(made))
        and seen.calls[norm] == seen.calls[layer] == seen.reads[made] == 1
        and fits(model.get_submodule(layer), model.get_submodule(norm))
    }


def gain_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A BatchNorm in evaluation as ``gain * x + shift``: ``[C]`` each, float64.

    gain = gamma / sqrt(var + eps), shift = beta - mean * gain.
    """
    assert isinstance(norm, BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        gain = gain * norm.weight.detach().double()
    shift = -norm.running_mean.double() * gain
    return gain, shift + norm.bias.detach().double() if norm.affine else shift


@torch.no_grad()
def fold_batch_norms(model: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """Fold every BatchNorm that can be into weight and bias of the layer before it; which went where.

    The outputs in evaluation stay what they were, up to rounding; masked weights stay zero.

    Raises:
        ValueError: a layer concerned is quantised: its levels would not survive.
    """
    pairs = batch_norm_pairs(model, input_shape)
    for norm_name, layer_name in pairs.items():
        layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
        weight = effective_weight(layer)
        if weight is not None and weight.fake_quantize is not None:
            raise ValueError(f"{layer_name} is quantised already; BatchNorms fold before that")
        gain, shift = gain_and_shift(norm)
        original = original_weight(layer)
        original.mul_(gain.to(original.dtype).view(-1, *(1,) * (original.dim() - 1)))
        old = 0.0 if layer.bias is None else layer.bias.double() * gain
        layer.bias = nn.Parameter((old + shift).to(original.dtype))
        remove_batch_norm(model, norm_name)
    return pairs


def remove_batch_norm(model: nn.Module, name: str) -> None:
    """Put the identity, or what timm's BatchNorms do after normalising, in a BatchNorm's place."""
    norm = model.get_submodule(name)
    after = [module for module in (getattr(norm, key, None) for key in ("drop", "act")) if module is not None]
    left = [module for module in after if not isinstance(module, nn.Identity)]
    replacement = nn.Sequential(*left) if left else nn.Identity()
    attach_output_fake_quantize(replacement, getattr(norm, "output_fake_quantize", None))
    model.set_submodule(name, replacement.train(norm.training))


class _Execution(Execution):
    """One pass in evaluation mode: which layer made a tensor, which BatchNorm takes it, how often it is read.

    Attributes:
        layers: memory -> name of the layer whose unquantised output lives there.
        inputs: BatchNorm -> memory of its input.
        calls: module -> how often it was executed.
        reads: memory -> how many operators read it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.layers: dict[int, str] = {}
        self.inputs: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.reads: Counter[int] = Counter()
        self._alive: list[Tensor] = []  # memory is told apart by address: none may be freed meanwhile

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operator and count what it reads; a view reads nothing."""
        if not func.is_view:
            self.reads.update({_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
        result = func(*args, **kwargs or {})
        self._alive += [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return result

    def hooks(self) -> Iterator[RemovableHandle]:
        """Watch layers and BatchNorms."""
        for name, layer in compressible_layers(self.model).items():
            yield layer.register_forward_hook(self._made(name))
        for name, module in self.model.named_modules():
            if isinstance(module, BatchNorm) and module.running_mean is not None:
                yield module.register_forward_pre_hook(self._taken(name))

    def _made(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.calls[name] += 1
            if getattr(layer, "output_fake_quantize", None) is None:
                self.layers[_memory(output)] = name
                self.reads[_memory(output)] = 0  # what the layer itself did does not count

        return hook

    def _taken(self, name: str) -> Any:
        def hook(norm: nn.Module, inputs: tuple) -> None:
            self.calls[name] += 1
            self.inputs[name] = _memory(inputs[0])

        return hook


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
