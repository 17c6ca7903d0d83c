"""``model.safetensors``: a compressed network's weights under its architecture's own names, for timm alone."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from micronet_cli.compression.pruning.removal import removed_channels
from micronet_cli.errors import UserError
from micronet_cli.layers.effective_weight import took_standardization
from micronet_cli.layers.plain import strip
from micronet_cli.layers.rules import compressible_layers
from micronet_cli.models.fitting import load_strict
from micronet_cli.network import Network
from micronet_cli.torch_internals import BatchNorm
from micronet_cli.trace.batch_norm import batch_norm_pairs

NAME = "model.safetensors"
# Of the largest logit: stored numbers have 24 bits; another computation differs by far more.
TOLERANCE = 1e-5
STRIP = "micronet_cli.strip(micronet_cli.load(RUN)) gives the network itself"


class NoPlainWeights(ValueError):
    """The architecture cannot compute what the network computes; the message says why."""


@torch.no_grad()
def plain_state(network: Network, architecture: nn.Module) -> dict[str, Tensor]:
    """The tensors of the stripped network by the architecture's names; see ``strip`` for what is in them.

    A BatchNorm that was folded comes back as one that only adds: the architecture has a place for it, and none for the
    layer's new bias.

    Args:
        network: as it was trained.
        architecture: what timm builds for it; gets the tensors.

    Raises:
        NoPlainWeights: its layers are of other shapes, or would standardise the weights once more.
    """
    layers = compressible_layers(network.model)
    standardized = [name for name, layer in layers.items() if took_standardization(layer)]
    if standardized:
        raise NoPlainWeights(
            f"{len(standardized)} layers ({standardized[0]}) standardise their weight, and would do so again to a "
            f"masked or quantised one; {STRIP}"
        )
    if removed_channels(network.compressors):
        raise NoPlainWeights(f"channels were taken out, and no architecture has these shapes; {STRIP}")
    state = strip(network.model).cpu().state_dict()
    _unfold(state, architecture, network.spec.size)
    try:
        load_strict(architecture, state, NAME)
    except UserError as error:
        raise NoPlainWeights(f"{error}; {STRIP}") from None
    return state


def _unfold(state: dict[str, Tensor], architecture: nn.Module, shape: tuple[int, ...]) -> None:
    """Add the BatchNorms that ``state`` lacks: gain 1, and the bias of the layer before them as their shift."""
    for norm_name, layer_name in batch_norm_pairs(architecture, shape).items():
        norm = architecture.get_submodule(norm_name)
        assert isinstance(norm, BatchNorm)
        if not norm.affine or f"{norm_name}.running_mean" in state:
            continue
        own = norm.state_dict()
        own["running_mean"] = torch.zeros_like(own["running_mean"])
        own["running_var"] = torch.ones_like(own["running_var"])
        own["weight"] = torch.full_like(own["weight"], math.sqrt(1 + norm.eps))
        own["bias"] = torch.zeros_like(own["bias"])
        layer = architecture.get_submodule(layer_name)
        bias = f"{layer_name}.bias"
        if layer.bias is None and bias in state:
            own["bias"] = state.pop(bias)
        for key, value in own.items():
            state[f"{norm_name}.{key}"] = value


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """The file's content; tensors that share memory are written once each."""
    tensors = {}
    for name, tensor in state.items():
        tensors[name] = tensor.detach().contiguous().clone()
    return save(tensors, metadata={"format": "pt"})


@torch.no_grad()
def check_plain(path: Path, network: Network, architecture: nn.Module, images: Tensor) -> dict[str, Any]:
    """Load the file into the architecture, and run it.

    Args:
        path: the file.
        network: what it was made of.
        architecture: of timm.
        images: ``[N, C, H, W]``.

    Returns:
        ``equal_predictions`` with the network, activation quantisers and all: a share in [0, 1].

    Raises:
        NoPlainWeights: it computes something else than the network without its activation quantisers.
    """
    load_strict(architecture, load_file(path), NAME)
    architecture = architecture.double().eval()
    images = images.double()
    found = architecture(images)
    expected = strip(network.model).cpu().double().eval()(images)
    largest = expected.abs().max()
    deviation = (found - expected).abs().max()
    if deviation > TOLERANCE * largest:
        raise NoPlainWeights(
            f"the architecture computes something else with these weights (logits of up to {largest:.3g} differ by "
            f"{deviation:.3g}); {STRIP}"
        )
    compressed = network.model.cpu().eval()(images.float())
    equal = compressed.argmax(1) == found.argmax(1)
    return {"equal_predictions": float(equal.double().mean())}


def loading_call(network: Network, architecture: nn.Module) -> str:
    """How a reader builds the network from the file, without micronet where the architecture is not micronet's own."""
    config = network.config
    classes = getattr(architecture, "num_classes", None)
    if "name" not in config:
        return f"{config['_target_']}(...).load_state_dict(safetensors.torch.load_file({NAME!r}))"
    arguments: dict[str, Any] = dict(config.get("args") or {})
    if classes is not None:
        arguments["num_classes"] = classes
    arguments["checkpoint_path"] = NAME
    listed = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    call = f"timm.create_model({config['name']!r}, {listed})"
    package = type(architecture).__module__
    if package.startswith("timm."):
        return call
    return f"import {package}; {call}"
