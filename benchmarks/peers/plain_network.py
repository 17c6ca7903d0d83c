"""A network of timm with plain layers of PyTorch in the place of timm's own, which tracers do not follow."""

import timm
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn

import micronet_cli.models.cifar_resnet  # noqa: F401  registers resnet20 with timm


def plain_network(name: str, weights: str, images: Tensor) -> nn.Module:
    """The network in evaluation mode, for images of that size.

    Args:
        name: timm's.
        weights: a safetensors file.
        images: a few; their logits must stay the same.
    """
    model = timm.create_model(name)
    model.load_state_dict(load_file(weights))
    model.eval()
    with torch.no_grad():
        expected = model(images)
        sizes = _input_sizes(model, images)
        _replace_layers(model, sizes)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    return model


def _input_sizes(model: nn.Module, images: Tensor) -> dict[nn.Module, tuple[int, int]]:
    """Height and width that each convolution with TensorFlow's padding reads."""
    sizes = {}

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        sizes[layer] = tuple(inputs[0].shape[2:])

    layers = [module for module in model.modules() if isinstance(module, Conv2dSame)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    model(images)
    for handle in handles:
        handle.remove()
    return sizes


def _replace_layers(module: nn.Module, sizes: dict[nn.Module, tuple[int, int]]) -> None:
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            setattr(module, name, _padded(child, sizes[child]))
        elif isinstance(child, BatchNormAct2d):
            setattr(module, name, _separate(child))
        else:
            _replace_layers(child, sizes)


def _padded(layer: Conv2dSame, size: tuple[int, int]) -> nn.Sequential:
    """The same padding as a layer of its own, which is fixed by the input's size."""
    height, width = (
        get_same_padding(side, kernel, stride, dilation)
        for side, kernel, stride, dilation in zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True)
    )
    padding = (width // 2, width - width // 2, height // 2, height - height // 2)
    plain = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    plain.load_state_dict(layer.state_dict())
    return nn.Sequential(nn.ZeroPad2d(padding), plain).eval()


def _separate(layer: BatchNormAct2d) -> nn.Sequential:
    """BatchNorm and activation function as two layers."""
    norm = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    norm.load_state_dict(layer.state_dict())
    return nn.Sequential(norm, layer.act).eval()
