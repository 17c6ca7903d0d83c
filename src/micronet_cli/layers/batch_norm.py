"""BatchNorm in evaluation: a gain and a shift for each channel, and how to take one out of a network."""

from torch import Tensor, nn

from micronet_cli.layers.fake_quantize import attach_output_fake_quantize
from micronet_cli.torch_internals import BatchNorm


def gain_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A BatchNorm in evaluation as ``gain * x + shift``: ``[C]`` each, float64.

    gain = gamma / sqrt(var + eps), shift = beta - mean * gain.
    """
    assert isinstance(norm, BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean = norm.running_mean.double()
    variance = norm.running_var.double()
    gain = (variance + norm.eps).rsqrt()
    if not norm.affine:
        return gain, -mean * gain
    gamma = norm.weight.detach().double()
    beta = norm.bias.detach().double()
    gain = gain * gamma
    shift = -mean * gain
    return gain, shift + beta


def remove_batch_norm(model: nn.Module, name: str) -> None:
    """Put the identity, or what timm's BatchNorms do after normalising, in a BatchNorm's place.

    A quantiser of the BatchNorm's output goes on quantising the output of what takes its place.
    """
    norm = model.get_submodule(name)
    remaining: list[nn.Module] = []
    # timm's BatchNormAct2d drops paths and applies its activation function by itself.
    for key in ("drop", "act"):
        module = getattr(norm, key, None)
        does_nothing = module is None or isinstance(module, nn.Identity)
        if not does_nothing:
            remaining.append(module)
    replacement: nn.Module = nn.Identity()
    if remaining:
        replacement = nn.Sequential(*remaining)
    output_quantizer = getattr(norm, "output_fake_quantize", None)
    attach_output_fake_quantize(replacement, output_quantizer)
    replacement.train(norm.training)
    model.set_submodule(name, replacement)
