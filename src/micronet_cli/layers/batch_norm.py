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
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        gain = gain * norm.weight.detach().double()
    shift = -norm.running_mean.double() * gain
    return gain, shift + norm.bias.detach().double() if norm.affine else shift


def remove_batch_norm(model: nn.Module, name: str) -> None:
    """Put the identity, or what timm's BatchNorms do after normalising, in a BatchNorm's place."""
    norm = model.get_submodule(name)
    after = [module for module in (getattr(norm, key, None) for key in ("drop", "act")) if module is not None]
    left = [module for module in after if not isinstance(module, nn.Identity)]
    replacement = nn.Sequential(*left) if left else nn.Identity()
    attach_output_fake_quantize(replacement, getattr(norm, "output_fake_quantize", None))
    model.set_submodule(name, replacement.train(norm.training))
